"""The models of `tests.engines.loaded` for the tests of this room."""

from tests.engines.loaded import (
    converted_folder,
    golden,
    golden_chats,
    golden_logits,
    one_thread,
    qwen1,
    qwen1_loaded,
    qwen2,
    qwen2_folder,
    qwen3_folder,
    qwen_home,
)

__all__ = [
    "converted_folder",
    "golden",
    "golden_chats",
    "golden_logits",
    "one_thread",
    "qwen1",
    "qwen1_loaded",
    "qwen2",
    "qwen2_folder",
    "qwen3_folder",
    "qwen_home",
]
