"""Which device a model goes to, by tables of cards that need not be here."""

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwen_openai.engines.torch_model.devices import (
    CPU,
    Card,
    Room,
    cards,
    current,
    devices_of,
    free_memory,
    offloaded,
    one_device,
    require_one_place,
    takes_flash,
)
from qwen_openai.errors import StartupError

GIB = 2**30
BUSY, FREE, FULL = Card(0, "A", 3 * GIB), Card(1, "B", 22 * GIB), Card(2, "C", 0)


@dataclass
class Spread:
    """A model as accelerate leaves it."""

    hf_device_map: dict[str, int | str] = field(default_factory=dict)


@pytest.mark.parametrize("device_map", ["auto", "sequential", "cuda:1"])
def test_the_freest_card_or_the_one_that_is_named(device_map: str) -> None:
    place, room = one_device(device_map, (BUSY, FREE, FULL))
    assert (place, room) == ("cuda:1", Room("cuda:1 B", 22 * GIB))
    assert room.is_card


@pytest.mark.parametrize("device_map", ["cuda", "cuda:0"])
def test_a_card_is_taken_though_another_is_freer(device_map: str) -> None:
    assert one_device(device_map, (BUSY, FREE)) == ("cuda:0", Room("cuda:0 A", 3 * GIB))


@pytest.mark.parametrize("device_map", ["auto", "balanced", "balanced_low_0", "sequential"])
def test_one_card_alone_is_no_spreading(device_map: str) -> None:
    assert one_device(device_map, (FREE,))[0] == "cuda:1"


@pytest.mark.parametrize("device_map", ["balanced", "balanced_low_0"])
def test_a_plan_that_spreads_is_refused(device_map: str) -> None:
    with pytest.raises(StartupError, match=r"over 2 cards.*keeps its cache on one") as caught:
        one_device(device_map, (BUSY, FREE))
    assert "--engine qwen_chat" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("device_map", "present"),
    [("cpu", (BUSY, FREE)), ("auto", ()), ("balanced", ()), ("mps", ()), ("mps", (FREE,))],
)
def test_without_a_card_it_is_the_machines_memory(
    device_map: str, present: tuple[Card, ...]
) -> None:
    place, room = one_device(device_map, present)
    assert (place, room.name) == (device_map, CPU)
    assert room.memory > 0
    assert not room.is_card


@pytest.mark.parametrize("device_map", ["cuda", "cuda:7"])
@pytest.mark.parametrize("present", [(), (FREE, FULL)])
def test_a_card_that_is_not_there(device_map: str, present: tuple[Card, ...]) -> None:
    with pytest.raises(StartupError, match=f"no device '{device_map}' here"):
        one_device(device_map, present)


@given(st.lists(st.integers(0, 100 * GIB), min_size=1, max_size=16))
def test_auto_takes_a_card_with_the_most(free: list[int]) -> None:
    present = [Card(number, "X", each) for number, each in enumerate(free)]
    place, room = one_device("auto", present)
    assert room.memory == max(free) == free[int(place.removeprefix("cuda:"))]


@pytest.mark.parametrize(
    "model",
    [
        object(),
        Spread(),
        Spread({"": "cpu"}),
        Spread({"": 1}),
        Spread({"model.layers.0": 1, "lm_head": 1}),
    ],
)
def test_one_place_is_fine(model: object) -> None:
    require_one_place(model)


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ({"model.layers.0": 0, "lm_head": 1}, "over cuda:0, cuda:1, and"),
        ({"model.layers.0": 0, "lm_head": "cpu"}, "over cpu, cuda:0, and"),
        ({"model.layers.0": "cpu", "lm_head": "disk"}, "over cpu, disk, and"),
    ],
)
def test_a_model_that_was_spread_is_refused(places: dict[str, int | str], said: str) -> None:
    with pytest.raises(StartupError, match=said) as caught:
        require_one_place(Spread(places))
    assert "--engine qwen_chat" in str(caught.value.fix)


def test_what_accelerate_left_behind_is_told() -> None:
    parts: dict[str, int | str] = {"model.layers.0": 0, "model.layers.1": 0, "lm_head": "cpu"}
    assert offloaded(Spread(parts)) == [
        (
            "on the CPU",
            "1 of 3 parts of the model did not fit on the cards; every token waits for them",
        ),
    ]
    assert offloaded(Spread({"": "cpu"})) == offloaded(object()) == []
    assert devices_of(Spread({"": "cpu"}), "cpu") == devices_of(object(), "cpu") == "CPU"


def test_the_cpu_is_nobodys_current_card() -> None:
    with current(torch.device("cpu")):
        assert float(torch.ones(2).sum()) == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_flash_attention_is_for_cards(dtype: torch.dtype) -> None:
    assert not takes_flash(dtype, torch.device("cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_a_machine_without_cards() -> None:
    assert cards() == ()
    assert free_memory("auto").name == free_memory("cpu").name == CPU
    with pytest.raises(StartupError, match="no device 'cuda:1' here"):
        free_memory("cuda:1")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no card")
def test_a_card_as_torch_sees_it() -> None:
    first, *_ = cards()
    assert first.place == "cuda:0"
    assert 0 < first.free <= torch.cuda.get_device_properties(0).total_memory
    assert free_memory("cuda").name == f"cuda:0 {first.name}"
    with current(torch.device("cuda:0")):
        assert torch.cuda.current_device() == 0
    assert not takes_flash(torch.float32, torch.device("cuda:0"))
