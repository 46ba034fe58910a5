"""Our engine `transformers` beside what else runs a checkpoint on a CPU, in one run.

    python -m bench.engines FOLDER [--streams 1,4,8] [--tokens 32] [--repeat 2]

FOLDER is a directory of safetensors. All compute in 32 bits: our gateway with the engine
`transformers`; `model.generate` one answer at a time, as the tutorial serves; and `transformers
serve --continuous-batching` as shipped. llama.cpp with the embedded model's 4-bit file is there for
orientation. Servers are asked over HTTP, generate in this process. They take turns, so drift of a
shared machine hits all; no prompt is asked for twice. Who is not installed is left out, with the
reason.
"""

import argparse
import itertools
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from bench.contenders import (
    Absent,
    Contender,
    Generate,
    Seen,
    Wish,
    llamacpp,
    ours,
    transformers_serve,
)
from bench.load import machine

_OURS, _BASE, _SERVE = "qwen-openai", "model.generate", "transformers serve"
_LLAMACPP = "llamacpp"
_GGUF = "qwen2.5-coder-0.5b"
# At 1 stream, and at the most streams, in times of generate.
_AIMS = (1.0, 3.0)
Row = dict[str, list[Seen]]


class Texts:
    """Prompts, none of them twice: what a server keeps of earlier ones is of no use to it."""

    def __init__(self, words: int) -> None:
        self._numbers = itertools.count(1000)
        self._words = words

    def next(self, count: int) -> list[str]:
        return [self._text(next(self._numbers)) for _ in range(count)]

    def _text(self, number: int) -> str:
        task = f"Number {number}: write a long story about this number, of ten pages or more."
        more = " ".join(str(number + step) for step in range(self._words))
        return f"{task} {more}".strip()


def gather(options: argparse.Namespace) -> tuple[list[Contender], list[str]]:
    """All who can take part, and why others cannot."""
    slots = max(options.streams)
    every: dict[str, Callable[[], Contender]] = {
        _OURS: lambda: ours(options.folder, slots, options.context),
        _BASE: lambda: Generate(options.folder),
        _SERVE: lambda: transformers_serve(options.folder, options.serve_blocks),
        _LLAMACPP: lambda: llamacpp(options.gguf, slots, options.context),
    }
    absent = [f"{name}: not wanted" for name in every if name in options.without]
    there: list[Contender] = []
    with ThreadPoolExecutor() as pool:
        starting = {n: pool.submit(make) for n, make in every.items() if n not in options.without}
    failed: BaseException | None = None
    for name, one in starting.items():
        why = one.exception()
        if why is None:
            there.append(one.result())
        elif isinstance(why, Absent):
            absent.append(f"{name}: {why}")
        else:
            failed = why
    if failed is not None:
        close(there)
        raise failed
    return there, absent


def close(contenders: list[Contender]) -> None:
    for one in contenders:
        one.close()


def measure(contenders: list[Contender], wishes: list[Wish]) -> tuple[Row, list[str]]:
    """Give each wish to all, each time in another order; and why some were not asked."""
    row: Row = {one.name: [] for one in contenders}
    absent: dict[str, str] = {}
    for number, wish in enumerate(wishes):
        order = contenders if number % 2 else contenders[::-1]
        seen: dict[str, Seen] = {}
        for one in order:
            try:
                seen[one.name] = one.answer(wish)
            except Absent as why:
                absent[one.name] = str(why)
        lengths = {each.prompts for each in seen.values()}
        if len(lengths) > 1:
            raise SystemExit(f"the prompts differ, this compares nothing: {seen}")
        for name, each in seen.items():
            row[name].append(each)
    told = [f"{name}: {why}" for name, why in absent.items()]
    return {name: seen for name, seen in row.items() if seen}, told


def ratio(row: Row, name: str, base: str) -> float | None:
    """The median over the rounds of how many times faster."""
    if name not in row or base not in row:
        return None
    pairs = zip(row[name], row[base], strict=True)
    return statistics.median(one.rate / other.rate for one, other in pairs)


def table(label: str, row: Row) -> Iterator[str]:
    """A line for each who took part."""
    for name, seen in row.items():
        rates = [one.rate for one in seen]
        first = statistics.median(one.first for one in seen)
        times = ratio(row, name, _BASE)
        yield (
            f"{label:10} {name:20} {statistics.median(rates):8.1f} tok/s"
            f" ({min(rates):.1f} to {max(rates):.1f})   TTFT {first:6.2f} s"
            + ("" if times is None else f"   {times:5.2f} times generate")
        )


def verdict(rows: dict[int, Row]) -> Iterator[str]:
    """The aims, and whether they are reached here."""
    few, many = min(rows), max(rows)
    aims = [
        (few, _BASE, _AIMS[0]),
        (many, _BASE, _AIMS[1]),
        (many, _SERVE, 1.0),
    ]
    for streams, other, aim in aims:
        times = ratio(rows[streams], _OURS, other)
        if times is None:
            yield f"aim        {streams} streams, beside {other}: not measured"
            continue
        said = "reached" if times >= aim else "missed"
        yield f"aim        {streams} streams: {times:.2f} times {other}, aim {aim:.1f}: {said}"


def report(options: argparse.Namespace) -> Iterator[str]:
    """Measure, and yield a line for each result."""
    about = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    yield f"{machine()}; {about}"
    yield (
        f"model      {options.folder.name}, float32, {options.tokens} tokens an answer,"
        f" {options.repeat} rounds"
    )
    contenders, absent = gather(options)
    try:
        yield from (f"absent     {why}" for why in absent)
        texts = Texts(options.words)
        # The warm-up; transformers serve takes the sampling of its first request for all.
        measure(contenders, [Wish(texts.next(1), 2)])
        rows: dict[int, Row] = {}
        for count in options.streams:
            wishes = [Wish(texts.next(count), options.tokens) for _ in range(options.repeat)]
            rows[count], told = measure(contenders, wishes)
            yield from table(f"{count} streams", rows[count])
            yield from (f"absent     {why}" for why in told)
        sampled, told = measure(
            contenders, [Wish(texts.next(max(rows)), options.tokens, sampled=True)]
        )
        yield from table(f"{max(rows)} sampled", sampled)
        yield from (f"absent     {why}" for why in told)
        yield from verdict(rows)
        yield machine()
    finally:
        close(contenders)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--streams", type=numbers, default=[1, 4, 8], help="such as 1,4,8")
    parser.add_argument("--tokens", type=int, default=32, help="of an answer")
    parser.add_argument("--repeat", type=int, default=2, help="rounds")
    parser.add_argument("--words", type=int, default=0, help="more words in each prompt")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--gguf", default=_GGUF, help="of the catalogue, for llamacpp")
    parser.add_argument("--serve-blocks", type=int, help="pages in the cache of transformers serve")
    parser.add_argument("--without", default=[], type=names, help="who is not to take part")
    options = parser.parse_args()
    for line in report(options):
        print(line, flush=True)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def names(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
