"""Where torch runs: what devices there are, what is free on them, and what people call them.

Imports torch only where it looks at cards.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwen_openai.engines.machine import measure
from qwen_openai.errors import StartupError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# Bytes of a number.
WIDTHS = {"bfloat16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes free for us on the devices that ``name`` names."""

    name: str
    memory: int


def free_memory(device_map: str) -> Room:
    """Measure the devices that accelerate would take for ``device_map``: "auto" and its like all
    CUDA cards, "cuda" and "cuda:1" that one; without a card, and for "cpu", the machine's memory.

    Raises StartupError for a card that is not there.
    """
    import torch

    wants_card = device_map.startswith("cuda")
    if device_map == "cpu" or not (wants_card or torch.cuda.is_available()):
        return Room("the CPU", measure().memory)
    cards = list(range(torch.cuda.device_count()))
    if wants_card:
        number = device_map.partition(":")[2] or "0"
        cards = [card for card in cards if str(card) == number]
    if not cards:
        raise StartupError(
            f"There is no device {device_map!r} here that torch could use.",
            fix="Give --device-map auto, or install a torch that was built for this card.",
        )
    free = sum(torch.cuda.mem_get_info(card)[0] for card in cards)
    return Room(", ".join(device_name(f"cuda:{card}") for card in cards), free)


def device_name(device: str) -> str:
    """What people call a device that torch calls, for example, "cuda:0"."""
    if not device.startswith("cuda"):
        return "CPU" if device == "cpu" else device
    import torch

    return f"{device} {torch.cuda.get_device_name(device)}"


def first_device(model: "PreTrainedModel") -> "torch.device":
    """Return the device that ids go to and logits come from.

    Of a model on several devices the first card: what is kept elsewhere may have no device of its
    own while it waits.
    """
    import torch

    places = getattr(model, "hf_device_map", None) or {}
    for place in places.values():
        if str(place) not in ("cpu", "disk"):
            return torch.device(place)
    device: torch.device = model.device
    return device


def devices_of(model: object, device: object) -> str:
    """All that accelerate has spread the weights over, else the one device."""
    names = sorted(set(_places(model))) or [str(device)]
    return ", ".join(device_name(name) for name in names)


def offloaded(model: object) -> list[tuple[str, str]]:
    """What accelerate had to leave in the machine's memory beside cards, which slows each token."""
    places = _places(model)
    on_cpu = sum(place in ("cpu", "disk") for place in places)
    if on_cpu in (0, len(places)):
        return []
    parts = f"{on_cpu} of {len(places)} parts of the model did not fit on the cards"
    return [("on the CPU", f"{parts}; every token waits for them")]


def _places(model: object) -> list[str]:
    """Where each part of the model is, if it was spread at all."""
    spread = getattr(model, "hf_device_map", None) or {}
    return [f"cuda:{place}" if isinstance(place, int) else str(place) for place in spread.values()]
