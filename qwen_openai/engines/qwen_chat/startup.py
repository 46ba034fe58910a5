"""A checkpoint to a QwenChat that fits: measured before the weights are read, for that takes long.

Imports torch: the engine's thread calls it, and nobody else imports it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers.utils import logging

from qwen_openai.engines.machine import measure
from qwen_openai.engines.qwen_chat.load import resolve_dtype
from qwen_openai.engines.qwen_chat.model import QwenChat
from qwen_openai.engines.qwen_chat.sizing import choose, free_memory
from qwen_openai.models.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the settings say; None leaves it to the machine. ``home`` is the cache folder."""

    device_map: str = "auto"
    dtype: str = "auto"
    context: int | None = None
    threads: int | None = None
    home: Path | None = None


def load_checkpoint(checkpoint: Checkpoint, wishes: Wishes) -> QwenChat:
    """Load the model; its ``context`` is what was asked for, or what the memory holds.

    Raises StartupError when it does not fit or cannot be loaded.
    """
    dtype = resolve_dtype(wishes.dtype, checkpoint, wishes.device_map)
    room = free_memory(wishes.device_map)
    name = str(dtype).removeprefix("torch.")
    sizing = choose(checkpoint, room, dtype=name, context=wishes.context)
    # For tensors on the CPU; torch counts the machine's cores, not the container's.
    torch.set_num_threads(wishes.threads or measure().cores)
    # `serve` shows that it loads; a second bar would be drawn over that.
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it bare
    model = QwenChat.from_pretrained(
        checkpoint.folder, device_map=wishes.device_map, dtype=dtype, home=wishes.home
    )
    model.context = sizing.context
    return model
