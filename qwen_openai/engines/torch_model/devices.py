"""Where torch runs: what devices there are, what is free on them, and what people call them.

Imports torch only where it looks at cards.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qwen_openai.engines.machine import measure
from qwen_openai.errors import StartupError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

CPU = "the CPU"
"""What a Room without a card is called."""

# The first cards that flash attention is built for.
_AMPERE = (8, 0)
# Bytes of a number.
WIDTHS = {"bfloat16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes free for us on the devices that ``name`` names."""

    name: str
    memory: int

    @property
    def is_card(self) -> bool:
        """Whether it is a card's memory, that nobody else wants, and not the machine's."""
        return self.name != CPU


@dataclass(frozen=True, slots=True)
class Card:
    """A CUDA device as torch counts them, and its bytes that are free."""

    number: int
    name: str
    free: int

    @property
    def place(self) -> str:
        """What torch calls it."""
        return f"cuda:{self.number}"


def free_memory(device_map: str) -> Room:
    """Measure the devices that accelerate would take for ``device_map``: "auto" and its like all
    CUDA cards, "cuda" and "cuda:1" that one; without a card, and for "cpu", the machine's memory.
    That is also what an Apple's GPU ("mps") has.

    Raises StartupError for a card that is not there.
    """
    present = cards()
    if not _wants_cards(device_map, present):
        return _machine()
    chosen = _named(device_map, present)
    name = ", ".join(f"{card.place} {card.name}" for card in chosen)
    return Room(name, sum(card.free for card in chosen))


def one_device(device_map: str, present: Sequence[Card]) -> tuple[str, Room]:
    """Choose a single device for a model whose cache can be on one alone; return what to load it
    with, and the room there. ``present`` are the machine's cards.

    "auto" and "sequential" take the card with the most free memory, a named one itself. Raises
    StartupError for a card that is not there, and for a plan that spreads a model over several.
    """
    if not _wants_cards(device_map, present):
        return device_map, _machine()
    chosen = _named(device_map, present)
    if device_map.startswith("balanced") and len(chosen) > 1:
        raise StartupError(
            f"The device map {device_map!r} spreads a model over {len(chosen)} cards, and the"
            " engine transformers keeps its cache on one.",
            fix="Give --device-map auto, which takes the card with the most free memory, or"
            " --engine qwen_chat, which spreads a model and makes one answer at a time.",
        )
    card = max(chosen, key=lambda each: each.free)
    return card.place, Room(f"{card.place} {card.name}", card.free)


def cards() -> tuple[Card, ...]:
    """Return the CUDA cards that torch can use here; looking makes a context on each."""
    import torch

    if not torch.cuda.is_available():
        return ()
    return tuple(
        Card(number, torch.cuda.get_device_name(number), torch.cuda.mem_get_info(number)[0])
        for number in range(torch.cuda.device_count())
    )


def current(device: "torch.device") -> contextlib.AbstractContextManager[object]:
    """While it lasts, what this thread does on "cuda" it does on this card: libraries ask torch how
    much is free without saying where."""
    import torch

    if device.type != "cuda":
        return contextlib.nullcontext()
    return torch.cuda.device(device)


def takes_flash(dtype: "torch.dtype", device: "torch.device") -> bool:
    """Whether transformers' batching is to take flash attention, 3 or 2: it is installed, for
    numbers of 16 bits on a card that it is built for."""
    import torch
    from transformers.utils.import_utils import (
        is_flash_attn_2_available,
        is_flash_attn_3_available,
    )

    if device.type != "cuda" or dtype == torch.float32:
        return False
    # Where torch drives a card of AMD, capabilities are numbered otherwise.
    if torch.version.hip is None and torch.cuda.get_device_capability(device) < _AMPERE:
        return False
    return bool(is_flash_attn_3_available() or is_flash_attn_2_available())


def require_one_place(model: object) -> None:
    """Raise StartupError where accelerate has spread ``model`` over several devices."""
    places = sorted(set(_places(model)))
    if len(places) > 1:
        raise StartupError(
            f"The model is spread over {', '.join(places)}, and the engine transformers keeps its"
            " cache on one device.",
            fix="Free memory on a card, take a smaller model, or give --engine qwen_chat, which"
            " makes one answer at a time.",
        )


def _machine() -> Room:
    return Room(CPU, measure().memory)


def _wants_cards(device_map: str, present: Sequence[Card]) -> bool:
    return device_map.startswith("cuda") or (device_map not in ("cpu", "mps") and bool(present))


def _named(device_map: str, present: Sequence[Card]) -> list[Card]:
    """The cards that a device map names: "cuda" the first, a plan all."""
    chosen = list(present)
    if device_map.startswith("cuda"):
        number = device_map.partition(":")[2] or "0"
        chosen = [card for card in present if str(card.number) == number]
    if not chosen:
        raise StartupError(
            f"There is no device {device_map!r} here that torch could use.",
            fix="Give --device-map auto, or install a torch that was built for this card.",
        )
    return chosen


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
