"""What an OpenAI-compatible server must get right, as facts that can be tried on any of them."""
