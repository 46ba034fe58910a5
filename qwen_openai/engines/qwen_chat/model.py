"""QwenChat: a Qwen of any generation with the first one's `chat` and `chat_stream`."""

import os
from collections.abc import Generator, Sequence
from pathlib import Path

import torch

from qwen_openai.core import Finish, Sampling, Text
from qwen_openai.engines.qwen_chat.detokenise import Detokeniser
from qwen_openai.engines.qwen_chat.generation import Limits, TokenLoop
from qwen_openai.engines.qwen_chat.load import DeviceMap, Dtype, Loaded, load
from qwen_openai.families import family_named, family_of


class QwenChat:
    def __init__(self, loaded: Loaded) -> None:
        self.checkpoint = loaded.checkpoint
        self.renderer = loaded.renderer
        self.context = loaded.checkpoint.context_length
        self._model = loaded.model
        self._bpe = loaded.bpe
        self._loop = TokenLoop(loaded.model, loaded.long_context)
        self.generation_config: object = loaded.model.generation_config
        family = family_named("qwen1") if self.checkpoint.qwen1 else family_of(self.checkpoint.name)
        known = (self.renderer.token_id(token) for token in family.stop_tokens)
        self._stops = frozenset(number for number in known if number is not None)

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        *,
        device_map: DeviceMap = "auto",
        dtype: Dtype = "auto",
        trust_remote_code: bool | None = None,
        home: Path | None = None,
    ) -> "QwenChat":
        return cls(load(path, device_map, dtype, home))

    @property
    def device(self) -> torch.device:
        device: torch.device = self._model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._model.dtype
        return dtype

    def eval(self) -> "QwenChat":
        return self

    def run(
        self, prompt: Sequence[int], sampling: Sampling, max_tokens: int, *, index: int = 0
    ) -> Generator[Text | Finish, None, None]:
        limits = Limits(
            max_tokens, self._stops | _ids(getattr(self.generation_config, "eos_token_id", None))
        )
        detokeniser = Detokeniser(self._bpe)
        count = 0
        for token in self._loop.run(prompt, sampling, limits):
            if token is None:
                yield Text(index, "", 0)
                continue
            count += 1
            stopped = token in limits.stop
            text = "" if stopped else detokeniser.feed(token)
            if stopped or count == max_tokens:
                yield Text(index, text + detokeniser.flush())
                yield Finish(index, "stop" if stopped else "length", count)
            else:
                yield Text(index, text)


def _ids(stated: object) -> frozenset[int]:
    if isinstance(stated, int):
        return frozenset((stated,))
    return frozenset(stated) if isinstance(stated, list) else frozenset()
