"""How far transformers is with the weights that it loads, told to whoever asked.

transformers draws bars and tells nobody; its hook for other bars is used. Knows no terminals.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from transformers.utils import logging

Report = Callable[[int, int], None]
"""Told how many weights of how many are loaded, from the thread that loads."""


@contextmanager
def reporting(report: Report | None) -> Iterator[None]:
    """Have transformers tell ``report`` of each weight that it has loaded, in place of its bar."""
    if report is None:
        yield
        return

    def make(
        factory: Callable[..., object], args: tuple[object, ...], named: dict[str, object]
    ) -> object:
        if args and isinstance(args[0], Collection) and named.get("desc") == "Loading weights":
            return _counted(args[0], report)
        return factory(*args, **named)

    before = logging.set_tqdm_hook(make)
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


def _counted(items: Collection[object], report: Report) -> Iterator[object]:
    for done, item in enumerate(items):
        report(done, len(items))
        yield item
    report(len(items), len(items))
