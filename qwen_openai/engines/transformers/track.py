"""One answer on its way through the batch, and the way of its tokens to the loop that reads them.

The batch's thread asks a track for its rules and tells it its tokens; all else happens in the
event loop of the reader. Knows ids, not text, and nothing of transformers.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Self

import torch

from qwen_openai.core import Sampling
from qwen_openai.engines.masks import TokenMask
from qwen_openai.engines.sampling import Picked, Rules, Sampler
from qwen_openai.engines.torch_model.limits import Limits
from qwen_openai.errors import ApiError

News = Picked | ApiError
"""What a step has for an answer: its next token, or why there is none."""


class Track:
    """The state of one answer.

    ``tokens`` are those picked so far, ``sampler`` what picks them; ``cached_tokens`` is how much
    of the prompt the cache held, None before it is read. Made in any thread; `rules` and
    `take` are for the batch's thread, `hear`, `next` and `leave` for the reader's loop.
    """

    def __init__(
        self, prompt: Sequence[int], limits: Limits, sampler: Sampler, mask: TokenMask | None = None
    ) -> None:
        self.id = ""
        self.prompt = list(prompt)
        self.limits = limits
        self.sampler = sampler
        self.tokens: list[int] = []
        self.cached_tokens: int | None = None
        self.is_over = False
        self._mask = mask
        self._barred: dict[bool, torch.Tensor | None] = {}
        self._news: deque[News] = deque()
        self._waiter: asyncio.Future[None] | None = None

    @classmethod
    def of(
        cls,
        prompt: Sequence[int],
        sampling: Sampling,
        limits: Limits,
        mask: TokenMask | None,
        device: torch.device,
        vocab_size: int,
    ) -> Self:
        """``vocab_size`` is the length of a row of logits: an id beyond it would end a CUDA
        context, and is left out of what a request says of tokens."""

        def known(ids: Collection[int]) -> frozenset[int]:
            return frozenset(token for token in ids if token < vocab_size)

        bias = tuple(pair for pair in sampling.logit_bias if pair[0] < vocab_size)
        sampler = Sampler(replace(sampling, logit_bias=bias), prompt, device)
        track = cls(prompt, limits, sampler, mask)
        barred = {True: known(limits.stop), False: known(limits.barred)}
        track._barred = {
            early: torch.tensor(sorted(ids), device=device) if ids else None
            for early, ids in barred.items()
        }
        if device.type == "cuda":
            # The steps that read these tensors are on another stream, which waits for none.
            torch.cuda.current_stream(device).synchronize()
        return track

    def __deepcopy__(self, memo: object) -> Self:
        """transformers copies what belongs to a request when it starts it anew: it is the same."""
        return self

    @property
    def length(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.prompt) + len(self.tokens)

    @property
    def is_complete(self) -> bool:
        """Whether the last token was the last."""
        limits, tokens = self.limits, self.tokens
        return bool(tokens) and (tokens[-1] in limits.stop or len(tokens) >= limits.max_tokens)

    def rules(self) -> Rules:
        """What holds for the next token. Raises EngineFailed where the grammar cannot tell."""
        barred = self._barred.get(len(self.tokens) < self.limits.min_tokens)
        return Rules(barred, None if self._mask is None else self._mask.allowed())

    def take(self, token: int) -> None:
        """The answer goes on with ``token``. Raises EngineFailed where the grammar forbids it."""
        self.tokens.append(token)
        if self._mask is not None and not self.is_complete:
            self._mask.take(token)

    def hear(self, news: News) -> None:
        """Hand news to the reader."""
        if self.is_over:
            return
        self._news.append(news)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> Picked:
        """The next token, waiting for it. Raises the failure that ends the answer."""
        while not self._news:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        news = self._news.popleft()
        if isinstance(news, ApiError):
            raise news
        return news

    def leave(self) -> None:
        """Nobody reads any more."""
        self.is_over = True
        self._news.clear()
