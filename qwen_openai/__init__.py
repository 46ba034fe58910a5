"""qwen-openai: an OpenAI-compatible chat API gateway for Qwen."""

__all__ = ["__version__"]

__version__ = "0.1.0"
