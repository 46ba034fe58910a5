"""The token loop: a prompt goes through the model in pieces, then one token at a time.

One forward pass at a time on a model object, however many answers are open: each has its own cache
and its own chance. Knows ids, not text, and no limits but those given.
"""

import threading
from collections.abc import Collection, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from qwen_openai.core import Sampling
from qwen_openai.engines.masks import TokenMask
from qwen_openai.engines.qwen_chat.cache import Extent, new_cache
from qwen_openai.engines.sampling import Picked, Rules, Sampler
from qwen_openai.engines.torch_model.devices import first_device
from qwen_openai.engines.torch_model.limits import Limits
from qwen_openai.engines.torch_model.long_context import LongContext

# Prompt tokens of one forward pass, on a card and on a CPU: long ones are the faster way through a
# prompt, and only between two of them can a cancelled answer end.
_PIECE, _PIECE_ON_CPU = 512, 128


class TokenLoop:
    """Runs answers of one model. Safe for several threads at once, each with its own answer.

    ``piece`` is how many tokens of a prompt are read at once, and may be set: it holds for answers
    that begin later.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        long_context: LongContext | None = None,
        piece: int | None = None,
    ) -> None:
        """Without ``piece``, it is chosen by the device."""
        self._model = model
        self._long_context = long_context
        self._device = first_device(model)
        self.piece = piece or (_PIECE_ON_CPU if self._device.type == "cpu" else _PIECE)
        self._one_pass = threading.Lock()

    def run(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        limits: Limits,
        mask: TokenMask | None = None,
    ) -> Generator[Picked | None, None, None]:
        """Yield None for each piece of the prompt, then the tokens of the answer.

        The stop token is yielded too, as the last. ``mask`` holds the answer to a grammar. Each
        `next` is one forward pass; closing the generator frees the cache. Raises EngineFailed when
        the model's numbers are none, and when the grammar cannot be followed.
        """
        extent = Extent(len(prompt), limits.max_tokens)
        answer = Answer(self._model, self._long_context, extent)
        sampler = Sampler(self._possible(sampling), prompt, self._device)
        logits, piece = None, self.piece
        for start in range(0, len(prompt), piece):
            logits = self._step(answer, prompt[start : start + piece])
            yield None
        at_first, later = self._on_device(limits.stop), self._on_device(limits.barred)
        for number in range(limits.max_tokens):
            if logits is None:
                raise ValueError("The prompt has no tokens.")
            barred = at_first if number < limits.min_tokens else later
            # A card computes the logits while the host makes the mask.
            allowed = None if mask is None else mask.allowed()
            picked = sampler.pick(logits, Rules(barred, allowed))
            yield picked
            if picked.token in limits.stop or number + 1 == limits.max_tokens:
                return
            if mask is not None:
                mask.take(picked.token)
            logits = self._step(answer, [picked.token])

    def _on_device(self, ids: Collection[int]) -> torch.Tensor | None:
        known = [token for token in ids if self._knows(token)]
        return torch.tensor(known, device=self._device) if known else None

    def _possible(self, sampling: Sampling) -> Sampling:
        bias = tuple((token, value) for token, value in sampling.logit_bias if self._knows(token))
        return replace(sampling, logit_bias=bias)

    def _knows(self, token: int) -> bool:
        """An id that the model does not have would end a CUDA context."""
        size: int = self._model.config.vocab_size
        return token < size

    def _step(self, answer: "Answer", ids: Sequence[int]) -> torch.Tensor:
        with self._one_pass, torch.inference_mode():
            return answer.forward(ids)


class Answer:
    """What one answer has in the model: its cache, and its rules beyond the trained length.

    To be used by one thread at a time, in torch's inference mode.
    """

    def __init__(
        self, model: PreTrainedModel, long_context: LongContext | None, extent: Extent
    ) -> None:
        """``extent`` has the length of the whole prompt, which the rules depend on."""
        self._model = model
        self._device = first_device(model)
        self._cache = new_cache(model, extent)
        self._long_context = long_context
        self._frequencies = long_context.frequencies(extent.prompt) if long_context else None
        self._length = 0

    def forward(self, ids: Sequence[int]) -> torch.Tensor:
        """Read ``ids`` behind what was read before; return the logits behind the last."""
        with self._rules(len(ids)):
            output = self._model(
                input_ids=torch.tensor([list(ids)], device=self._device),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self._length += len(ids)
        logits: torch.Tensor = output.logits[0, -1]
        return logits

    def _rules(self, count: int) -> AbstractContextManager[None]:
        if self._long_context is None:
            return nullcontext()
        return self._long_context.during(self._frequencies, self._length, count)
