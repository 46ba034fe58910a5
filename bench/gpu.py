"""Many answers at once on one card: `python -m bench.gpu`.

Models of the shapes of Qwen-7B-Chat and Qwen2.5-7B are made on the card with random weights;
nothing is fetched or read. Measured for each number of streams: our engine without HTTP, `generate`
in a static batch, transformers' continuous batching as shipped, and `generate` one answer at a
time, as the tutorial serves. A step cannot take less time than reading the weights and the cache of
its answers: that, at the copy speed measured in the same run, is the floor. A cell that takes
longer than --limit is cut short, one that would begin after --budget is left out. Without a card:

    python -m bench.gpu --tiny
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version

import torch
from transformers import Qwen2ForCausalLM
from transformers.utils import logging

from bench.gpu_cells import Ours, Prompts, Shape, Shipped, Times, build, generate, release, size
from bench.load import machine
from bench.qwen_chat import copy_speed
from qwen_openai.engines.torch_model.devices import Room, one_device
from qwen_openai.engines.torch_model.devices import cards as cards_here
from qwen_openai.engines.torch_model.load import DTYPES
from qwen_openai.errors import ApiError, StartupError

MODELS = {
    "qwen-7b-chat": Shape(32, 4096, 32, 32, 11008, 151_936),
    "qwen2.5-7b": Shape(28, 3584, 28, 4, 18944, 152_064),
}
_TINY = Shape(2, 64, 4, 2, 128, 512)
_OURS, _ALONE, _BATCH, _SHIPPED = "ours", "alone", "batch", "shipped"
WAYS = (_ALONE, _BATCH, _SHIPPED, _OURS)
# At 1 stream: of the floor. At 32: times generate alone. At any: times what is shipped.
_OF_FLOOR, _OF_ALONE, _OF_SHIPPED = 0.6, 12.0, 1.0
_MANY = 32
Way = Callable[[Prompts, int, float], Times]


@dataclass(frozen=True)
class Plan:
    """What is asked of each way."""

    streams: list[int]
    prompt: int
    tokens: int
    limit: float
    end: float

    @property
    def context(self) -> int:
        """Tokens of the longest answer with its prompt, and a few to spare."""
        return max(self.prompt + self.tokens + 16, 256)


@dataclass(frozen=True)
class Floor:
    """``speed`` is bytes a second; ``weights`` are read once a step, ``kept`` for each token of the
    cache."""

    speed: float
    weights: int
    kept: int

    def rate(self, streams: int, length: float) -> float:
        """Tokens a second of so many answers that are ``length`` tokens long with their prompts."""
        return streams * self.speed / (self.weights + streams * length * self.kept)


class Bench:
    """One model, and what was seen of it."""

    def __init__(self, model: Qwen2ForCausalLM, plan: Plan, floor: Floor) -> None:
        self._model, self._plan, self._floor = model, plan, floor
        self._random = random.Random(0)
        self.rates: dict[tuple[str, int], float] = {}
        self.shares: dict[tuple[str, int], float] = {}

    def run(self, name: str, way: Way, streams: list[int]) -> Iterator[str]:
        """Measure one way with each number of streams."""
        try:
            way(self._prompts(1), min(self._plan.tokens, 8), self._plan.limit)
        except (RuntimeError, ApiError) as error:
            yield f"{name:8} failed: {_short(error)}"
            return
        for count in streams:
            if time.monotonic() > self._plan.end:
                yield f"{name:8} {count:4} streams: not run, the time was over"
                continue
            try:
                times = way(self._prompts(count), self._plan.tokens, self._plan.limit)
                yield self._line(name, count, times)
            except (RuntimeError, ApiError) as error:
                yield f"{name:8} {count:4} streams: failed: {_short(error)}"

    def _prompts(self, count: int) -> Prompts:
        rows = self._model.config.vocab_size
        return [self._random.choices(range(rows), k=self._plan.prompt) for _ in range(count)]

    def _line(self, name: str, count: int, times: Times) -> str:
        wanted = count * self._plan.tokens
        if not times.tokens:
            return f"{name:8} {count:4} streams: no token within {self._plan.limit:.0f} s"
        cut = "" if times.tokens == wanted else f"   cut short: {times.tokens} of {wanted} tokens"
        self.rates[name, count] = times.rate
        decode = times.decode_rate
        said = "-"
        if decode is not None:
            length = self._plan.prompt + self._plan.tokens / 2
            self.shares[name, count] = decode / self._floor.rate(count, length)
            said = f"{self.shares[name, count]:.2f}"
        firsts, gaps = times.firsts, times.gaps
        return (
            f"{name:8} {count:4} streams {times.rate:9.1f} tok/s"
            f"   TTFT p50 {_at(firsts, 0.5):.3f} p99 {_at(firsts, 0.99):.3f} s"
            f"   between p99 {_at(gaps, 0.99) * 1e3:.1f} ms   of the floor {said}{cut}"
        )

    def verdict(self) -> Iterator[str]:
        """The aims, and whether they are reached here."""
        share = self.shares.get((_OURS, 1))
        yield _aim("1 stream, of the floor", share, _OF_FLOOR)
        yield _aim(f"{_MANY} streams, of generate alone", self._ratio(_MANY, _ALONE, 1), _OF_ALONE)
        for count in self._plan.streams:
            ratio = self._ratio(count, _SHIPPED, count)
            yield _aim(f"{count} streams, of what is shipped", ratio, _OF_SHIPPED)

    def _ratio(self, count: int, other: str, of: int) -> float | None:
        ours, theirs = self.rates.get((_OURS, count)), self.rates.get((other, of))
        return None if ours is None or theirs is None else ours / theirs


def _aim(what: str, seen: float | None, aim: float) -> str:
    if seen is None:
        return f"aim      {what}: not measured"
    return f"aim      {what}: {seen:.2f}, aim {aim}: {'reached' if seen >= aim else 'missed'}"


def _at(values: list[float], share: float) -> float:
    """The value below which ``share`` of sorted values lie."""
    return values[min(int(share * len(values)), len(values) - 1)] if values else 0.0


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def measure(name: str, shape: Shape, plan: Plan, options: argparse.Namespace) -> Iterator[str]:
    """Make one model, measure it every way that is wanted, and let it go."""
    device, dtype = torch.device(options.device), DTYPES[options.dtype]
    room = Room("the CPU", 2**30) if options.tiny else _room(device)
    speed = copy_speed(device, options.copy * 2**20)
    release()
    begun = time.perf_counter()
    model = build(shape.config(plan.context), device, dtype)
    weights = sum(each.numel() * each.element_size() for each in model.parameters())
    yield (
        f"{name}: {shape.layers} layers, {weights / 2**30:.2f} GiB in {options.dtype}, made in"
        f" {time.perf_counter() - begun:.1f} s; copies {speed / 1e9:,.0f} GB/s"
    )
    # Of the input embedding a step reads a row for each answer, of all else everything.
    read = weights - shape.rows * shape.hidden * dtype.itemsize
    bench = Bench(model, plan, Floor(speed, read, shape.kv_values * dtype.itemsize))
    most = max(plan.streams)
    if _ALONE in options.ways:
        yield from bench.run(_ALONE, lambda *asked: generate(model, *asked), [1])
    if _BATCH in options.ways:
        many = [count for count in plan.streams if count > 1]
        yield from bench.run(_BATCH, lambda *asked: generate(model, *asked), many)
    release()
    makers: dict[str, Callable[[], Ours | Shipped]] = {
        _SHIPPED: lambda: Shipped(model),
        _OURS: lambda: Ours(model, size(shape, plan.context, dtype, room, most)),
    }
    for way, make in makers.items():
        if way in options.ways:
            yield from _with(bench, way, make, plan.streams)
    yield from bench.verdict()


def _with(
    bench: Bench, way: str, make: Callable[[], Ours | Shipped], streams: list[int]
) -> Iterator[str]:
    """Run what has a cache of its own, and free it."""
    begun = time.perf_counter()
    try:
        one = make()
    except (RuntimeError, ApiError, StartupError) as error:
        yield f"{way:8} did not start: {_short(error)}"
        return
    try:
        yield f"{way:8} started in {time.perf_counter() - begun:.1f} s"
        yield from bench.run(way, one.answer, streams)
    finally:
        one.close()


def _room(device: torch.device) -> Room:
    place = str(device) if device.index is not None else f"{device.type}:0"
    return one_device(place, cards_here())[1]


def report(options: argparse.Namespace) -> Iterator[str]:
    """Measure, and yield a line for each result."""
    about = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    yield f"{_card(torch.device(options.device))}; {about}; {machine()}"
    plan = Plan(
        options.streams,
        options.prompt,
        options.tokens,
        options.limit,
        time.monotonic() + options.budget,
    )
    for name, shape in ({"tiny": _TINY} if options.tiny else MODELS).items():
        if not options.tiny and name not in options.models:
            continue
        given = {
            field: getattr(options, field)
            for field in Shape.__dataclass_fields__
            if getattr(options, field) is not None
        }
        yield from measure(name, replace(shape, **given), plan, options)
        release()


def _card(device: torch.device) -> str:
    if device.type != "cuda":
        return f"no GPU: {device.type}"
    about = torch.cuda.get_device_properties(device)
    return f"{about.name}, {about.total_memory / 2**30:.1f} GiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a tiny model, on the CPU")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16", choices=sorted(DTYPES))
    parser.add_argument("--models", type=names, default=list(MODELS), help=",".join(MODELS))
    parser.add_argument("--ways", type=names, default=list(WAYS), help=",".join(WAYS))
    parser.add_argument("--streams", type=numbers, default=[1, 8, 32, 128], help="such as 1,8,32")
    parser.add_argument("--prompt", type=int, default=512, help="tokens")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of an answer")
    parser.add_argument("--limit", type=float, default=40, help="seconds of a cell")
    parser.add_argument("--budget", type=float, default=480, help="seconds until the last begins")
    parser.add_argument("--copy", type=int, default=2048, help="MiB that are copied")
    for field in Shape.__dataclass_fields__:
        parser.add_argument(f"--{field.replace('_', '-')}", type=int, help="of the model")
    options = parser.parse_args()
    if options.tiny:
        options.device, options.dtype = "cpu", "float32"
        torch.set_num_threads(1)
    elif not torch.cuda.is_available():
        parser.exit(2, "There is no card here that torch can use. A smoke test: --tiny\n")
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it bare
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # likewise
    for line in report(options):
        print(line, flush=True)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def names(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
