"""Small incremental machines over generated text: `feed(text)`, `flush()`. Sans I/O."""
