"""Qwen-1 (Qwen-7B-Chat and its siblings) as a Qwen2: its config, its tensors, its conversion.

Importing this needs no torch; `state_dict`, and weights in PyTorch's own files, do.
"""

from qwen_openai.models.checkpoint import tokenizer_file
from qwen_openai.models.qwen1.config import generation_config, qwen2_config
from qwen_openai.models.qwen1.convert import Conversion, convert
from qwen_openai.models.qwen1.weights import state_dict

__all__ = [
    "Conversion",
    "convert",
    "generation_config",
    "qwen2_config",
    "state_dict",
    "tokenizer_file",
]
