"""qwen-openai: an OpenAI-compatible chat API gateway for Qwen."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qwen_openai.engines.qwen_chat.model import QwenChat

__all__ = ["QwenChat", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import QwenChat, and torch with it, only when it is asked for."""
    if name == "QwenChat":
        from qwen_openai.engines.qwen_chat.model import QwenChat

        return QwenChat
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
