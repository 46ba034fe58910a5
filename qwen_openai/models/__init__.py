"""Names to weights on disk: the catalogue, pulling, verifying, reading GGUF metadata."""
