"""Who takes part in `bench.engines`: servers, each asked over HTTP, and transformers' `generate`.

Each is given the same prompts and asked for as many tokens of each, in the same numbers; what one
cannot be asked for in the words of the others is translated here.
"""

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging
from transformers.utils.import_utils import is_serve_available

from bench.load import Stream, request_bytes, start_gateway, streams, wait_ready
from bench.qwen_chat import Clock

_SYSTEM = "You are a helpful assistant."
_GREEDY = {"temperature": 0.0, "top_p": 1.0}
_SAMPLED = {"temperature": 0.7, "top_p": 0.8}
_OFF = {
    "top_k": 0,
    "min_p": 0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0,
    "frequency_penalty": 0,
}
# No model's token: an answer to it ends with its last token only.
_NO_TOKEN = -1


class Absent(Exception):
    """A contender cannot take part; the message says why."""


@dataclass(frozen=True)
class Wish:
    """So many ``tokens`` after each of ``texts``, all asked at once; greedy unless ``sampled``."""

    texts: Sequence[str]
    tokens: int
    sampled: bool = False

    def messages(self, text: str) -> list[dict[str, str]]:
        return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": text}]

    @property
    def sampling(self) -> Mapping[str, float]:
        return _SAMPLED if self.sampled else _GREEDY


@dataclass(frozen=True)
class Seen:
    """``rate`` is tokens a second of all answers together, ``first`` the mean of seconds to the
    first token; ``prompts`` are the lengths of the prompts in tokens, sorted."""

    rate: float
    first: float
    prompts: tuple[int, ...]


class Contender(Protocol):
    """Answers wishes."""

    name: str

    def answer(self, wish: Wish) -> Seen:
        """Raises RuntimeError when fewer tokens come than were asked for."""

    def close(self) -> None: ...


@dataclass
class Server:
    """A server that speaks the OpenAI API as far as ``words`` says."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    model: str
    words: "Words"

    def answer(self, wish: Wish) -> Seen:
        requests = [
            request_bytes(
                "/v1/chat/completions",
                {
                    "model": self.model,
                    "messages": wish.messages(text),
                    "max_tokens": wish.tokens,
                    "stream": True,
                    **self.words.of(wish),
                },
                close=True,
            )
            for text in wish.texts
        ]
        begun = time.perf_counter()
        seen: list[Stream] = asyncio.run(streams(self.port, requests))
        elapsed = time.perf_counter() - begun
        for one in seen:
            if one.tokens() != wish.tokens:
                raise RuntimeError(
                    f"{self.name}: {one.tokens()} tokens came, {wish.tokens} were asked for:"
                    f" {bytes(one.raw[-500:])!r}"
                )
        return Seen(
            len(seen) * wish.tokens / elapsed,
            statistics.mean(one.first for one in seen),
            tuple(sorted(one.prompt_tokens() for one in seen)),
        )

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Words(Protocol):
    """How a server is told what is wished."""

    def of(self, wish: Wish) -> dict[str, object]: ...


class OurWords:
    """All that is wished, by the names of OpenAI and vLLM."""

    def of(self, wish: Wish) -> dict[str, object]:
        usage = {"include_usage": True}
        return {**_OFF, **wish.sampling, "ignore_eos": True, "stream_options": usage}


class ServeWords:
    """`transformers serve` takes a whole generation config, and only that of its first request."""

    def of(self, wish: Wish) -> dict[str, object]:
        if wish.sampled:
            raise Absent("it samples every request as the first one wished, and that was greedy")
        config = {"max_new_tokens": wish.tokens, "do_sample": False, "eos_token_id": _NO_TOKEN}
        return {"generation_config": json.dumps(config)}


def ours(folder: Path, slots: int, context: int) -> Server:
    """Our gateway, the engine `transformers` in it."""
    flags = ["--engine", "transformers", "--device-map", "cpu", "--dtype", "float32"]
    process, port = _gateway([str(folder), *flags], slots, context)
    return Server("qwen-openai", process, port, "bench", OurWords())


def llamacpp(model: str, slots: int, context: int) -> Server:
    """Our gateway with llama.cpp in it, on a GGUF file of the catalogue."""
    process, port = _gateway([model, "--offline"], slots, context)
    return Server("llamacpp", process, port, "bench", OurWords())


def _gateway(arguments: list[str], slots: int, context: int) -> tuple[subprocess.Popen[bytes], int]:
    sizes = ["--slots", str(slots), "--context", str(context)]
    try:
        return start_gateway(*arguments, *sizes, "--served-model-name", "bench")
    except RuntimeError as error:
        raise Absent(f"{error}: `qwen-openai serve {' '.join(arguments)}` says why") from error


def transformers_serve(folder: Path, blocks: int | None) -> Server:
    """transformers' own server with its batching, as shipped; ``blocks`` bounds its cache, which
    else takes most of the machine's memory."""
    if not is_serve_available():
        raise Absent("its libraries are not installed: pip install 'transformers[serving]'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    flags = ["--continuous-batching", "--device", "cpu", "--dtype", "float32"]
    bound = [] if blocks is None else ["--cb-num-blocks", str(blocks)]
    process = subprocess.Popen(
        [*command, *flags, *bound, "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    try:
        wait_ready(process, port, "/health")
    except RuntimeError as error:
        process.kill()
        process.wait()
        raise Absent(f"{error}: `transformers serve {folder}` says why") from error
    return Server("transformers serve", process, port, str(folder), ServeWords())


class Generate:
    """`model.generate`, one answer after another, as the tutorial serves them.

    One answer is made whatever the number of prompts: the others would take as long each, and
    wait for those before them.
    """

    name = "model.generate"

    def __init__(self, folder: Path) -> None:
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it bare
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # likewise
        # What transformers says of their types would have us tell apart all that they could be.
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def answer(self, wish: Wish) -> Seen:
        prompts = [self._ids(wish, text) for text in wish.texts]
        ids = torch.tensor([prompts[0]])
        sampling = {**_SAMPLED, "top_k": 0} if wish.sampled else {}
        config = GenerationConfig.from_dict(
            {
                "max_new_tokens": wish.tokens,
                "do_sample": wish.sampled,
                "eos_token_id": _NO_TOKEN,
                "repetition_penalty": 1.0,
                **sampling,
            }
        )
        clock = Clock()
        begun = time.perf_counter()
        with torch.inference_mode():
            mask = torch.ones_like(ids)
            self._model.generate(ids, attention_mask=mask, generation_config=config, streamer=clock)
        elapsed = time.perf_counter() - begun
        _, first, *later = clock.times
        if 1 + len(later) != wish.tokens:
            raise RuntimeError(f"generate: {1 + len(later)} tokens came, {wish.tokens} were wished")
        waited = elapsed * (len(prompts) - 1) / 2
        return Seen(wish.tokens / elapsed, first - begun + waited, tuple(sorted(map(len, prompts))))

    def _ids(self, wish: Wish, text: str) -> list[int]:
        made: list[int] = self._tokenizer.apply_chat_template(
            wish.messages(text), add_generation_prompt=True, return_dict=False
        )
        return made

    def close(self) -> None:
        """It ends with this process."""
