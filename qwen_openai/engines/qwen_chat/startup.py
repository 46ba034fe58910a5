"""A checkpoint to a QwenChat that fits: measured before the weights are read, for that takes long.

Imports torch: the engine's thread calls it, and nobody else imports it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers.utils import logging

from qwen_openai.engines.machine import measure
from qwen_openai.engines.qwen_chat.model import QwenChat
from qwen_openai.engines.qwen_chat.sizing import choose
from qwen_openai.engines.torch_model.devices import free_memory
from qwen_openai.engines.torch_model.load import check_devices, resolve_dtype
from qwen_openai.engines.torch_model.progress import Report, reporting
from qwen_openai.models.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the settings say; None leaves it to the machine. ``home`` is the cache folder,
    ``batch_tokens`` the tokens of a prompt that are read in one step."""

    device_map: str = "auto"
    dtype: str = "auto"
    context: int | None = None
    threads: int | None = None
    home: Path | None = None
    batch_tokens: int | None = None


def load_checkpoint(
    checkpoint: Checkpoint, wishes: Wishes, report: Report | None = None
) -> QwenChat:
    """Load the model; its ``context`` is what was asked for, or what the memory holds. ``report``
    is told how many of how many weights are loaded.

    Raises StartupError when it does not fit or cannot be loaded.
    """
    check_devices(wishes.device_map)
    dtype = resolve_dtype(wishes.dtype, checkpoint, wishes.device_map)
    room = free_memory(wishes.device_map)
    name = str(dtype).removeprefix("torch.")
    sizing = choose(checkpoint, room, dtype=name, context=wishes.context)
    # For tensors on the CPU; torch counts the machine's cores, not the container's.
    torch.set_num_threads(wishes.threads or measure().cores)
    # `serve` shows how far it is; a second bar would be drawn over that.
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it bare
    with reporting(report):
        model = QwenChat.from_pretrained(
            checkpoint.folder, device_map=wishes.device_map, dtype=dtype, home=wishes.home
        )
    model.context = sizing.context
    if wishes.batch_tokens is not None:
        model.prefill = wishes.batch_tokens
    return model
