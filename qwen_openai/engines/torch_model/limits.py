"""When an answer ends: with which tokens, not before which, and never with which.

Made of what a request asks and what a model does by itself; knows ids alone, no texts and no
stop strings, which the parser chain looks for.
"""

from collections.abc import Collection
from dataclasses import dataclass

from qwen_openai.core import Sampling


@dataclass(frozen=True, slots=True)
class Limits:
    """When an answer ends: with one of ``stop``, which is not picked before ``min_tokens`` others,
    or after ``max_tokens``. Those of ``stop`` that are ``barred`` too are never picked, unless the
    answer is held to a grammar that must end there."""

    max_tokens: int
    stop: frozenset[int]
    min_tokens: int = 0
    barred: frozenset[int] = frozenset()

    @classmethod
    def of(
        cls, sampling: Sampling, max_tokens: int, own: frozenset[int], further: Collection[int] = ()
    ) -> "Limits":
        """``own`` are the ids at which the model itself ends an answer; ``further`` ones end it
        too, under ``ignore_eos`` as well, as those that the request names do."""
        wanted = frozenset((*further, *sampling.stop_token_ids))
        barred = own - wanted if sampling.ignore_eos else frozenset()
        return cls(max_tokens, own | wanted, sampling.min_tokens, barred)
