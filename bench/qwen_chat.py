"""What one answer of QwenChat costs beside what memory allows: `python -m bench.qwen_chat`.

A model of Qwen-7B's shape with random weights is made on the device; nothing is fetched or read.
One stream, greedy, runs through `QwenChat.run`, the way the engine uses it. The baselines are of
the same run: the device's own copy speed (a token cannot be had faster than its weights and cache
are read), and transformers' `generate` on the same model. A smoke test without a GPU:

    python -m bench.qwen_chat --layers 2 --small --device cpu --dtype float32 --copy 64
"""

import argparse
import base64
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig, Qwen2ForCausalLM
from transformers.generation.streamers import BaseStreamer
from transformers.models.qwen2 import Qwen2Config

from bench.load import machine
from qwen_openai.core import Finish, Sampling
from qwen_openai.engines.qwen_chat.model import QwenChat
from qwen_openai.engines.torch_model.load import DTYPES, Loaded
from qwen_openai.engines.torch_model.long_context import LongContext
from qwen_openai.models.checkpoint import Checkpoint, Qwen1Facts
from qwen_openai.models.tiktoken_file import CONTROL_TOKENS, build_from_tiktoken
from qwen_openai.prompting.bpe import Bpe
from qwen_openai.prompting.qwen1 import Qwen1Renderer

_GREEDY = Sampling(temperature=0)
_FACTS = Qwen1Facts(seq_length=8192, use_dynamic_ntk=True, use_logn_attn=True)
_LONGEST = 32768


@dataclass(frozen=True)
class Shape:
    """Of Qwen-7B, or one that a test can afford."""

    hidden: int = 4096
    heads: int = 32
    inner: int = 11008
    words: int = 151_643  # ranks of the vocabulary, without control tokens
    rows: int = 151_936


_SMALL = Shape(hidden=128, heads=4, inner=256, words=300, rows=512)


def _vocabulary(words: int, folder: Path) -> Bpe:
    """A vocabulary with as many tokens as Qwen's: all single bytes, then pairs, then triples."""
    every = (
        bytes(some) for size in (1, 2, 3) for some in itertools.product(range(256), repeat=size)
    )
    tokens = itertools.islice(every, words)
    lines = (b"%s %d\n" % (base64.b64encode(each), rank) for rank, each in enumerate(tokens))
    ranks = folder / "qwen.tiktoken"
    ranks.write_bytes(b"".join(lines))
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_bytes(build_from_tiktoken(ranks))
    return Bpe(tokenizer)


def _model(shape: Shape, layers: int, device: torch.device, dtype: torch.dtype) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=shape.rows,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=_LONGEST,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    with device:
        model = Qwen2ForCausalLM._from_config(config, dtype=dtype).eval()
    # A row of zeros is never the likeliest: no stop token ends the measurement early.
    with torch.no_grad():
        model.lm_head.weight[shape.words : shape.words + len(CONTROL_TOKENS)] = 0
    return model


def _chat(model: Qwen2ForCausalLM, bpe: Bpe, layers: int, shape: Shape) -> QwenChat:
    checkpoint = Checkpoint(
        name="qwen-7b-shape",
        folder=Path(),
        raw=False,
        qwen1=_FACTS,
        context_length=_LONGEST,
        kv_values_per_token=2 * layers * shape.hidden,
        weight_bytes=_bytes_of(model),
        dtype=str(model.dtype).removeprefix("torch."),
    )
    long_context = LongContext(model, _FACTS)
    return QwenChat(Loaded(checkpoint, model, bpe, Qwen1Renderer(bpe), long_context))


def _bytes_of(model: Qwen2ForCausalLM) -> int:
    return sum(each.numel() * each.element_size() for each in model.parameters())


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def copy_speed(device: torch.device, size: int) -> float:
    """Bytes a second, read and written together, of a large copy within the device's memory."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(12):
        _wait(device)
        begun = time.perf_counter()
        target.copy_(source)
        _wait(device)
        seconds.append(time.perf_counter() - begun)
    return 2 * size / statistics.median(seconds[2:])


def one_answer(chat: QwenChat, prompt: list[int], tokens: int) -> tuple[float, float]:
    """Seconds to the first token, and tokens a second from there on."""
    begun = time.perf_counter()
    first = last = 0.0
    count = 0
    for event in chat.run(prompt, _GREEDY, tokens):
        if isinstance(event, Finish):
            count = event.completion_tokens or 0
        elif event.tokens:
            last = time.perf_counter()
            first = first or last
    if count != tokens:
        raise RuntimeError(f"{count} tokens came, {tokens} were asked for")
    return first - begun, (count - 1) / (last - first)


class Clock(BaseStreamer):  # type: ignore[no-untyped-call]  # transformers' own
    """When each token of transformers' generate came; the first call brings the prompt."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """The answer is complete."""


def stock_rate(model: Qwen2ForCausalLM, prompt: list[int], tokens: int) -> float:
    """Tokens a second of transformers' generate from the first one on, as `one_answer` counts."""
    ids = torch.tensor([prompt], device=model.device)
    config = GenerationConfig(max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
    clock = Clock()
    with torch.inference_mode():
        mask = torch.ones_like(ids)
        model.generate(ids, attention_mask=mask, generation_config=config, streamer=clock)
    _, first, *_, last = clock.times
    return (tokens - 1) / (last - first)


def _repeated(measure: Callable[[], float], times: int) -> tuple[float, str]:
    """The median, and the range in words."""
    seen = [measure() for _ in range(times)]
    return statistics.median(seen), f"{min(seen):.1f} to {max(seen):.1f}"


def report(options: argparse.Namespace) -> Iterator[str]:
    """Measure, and yield a line for each result."""
    shape = _SMALL if options.small else Shape()
    device, dtype = torch.device(options.device), DTYPES[options.dtype]
    yield f"{_name(device)}, torch {torch.__version__}; {machine()}"
    begun = time.perf_counter()
    model = _model(shape, options.layers, device, dtype)
    _wait(device)
    made = time.perf_counter() - begun
    with tempfile.TemporaryDirectory() as folder:
        chat = _chat(model, _vocabulary(shape.words, Path(folder)), options.layers, shape)
    weights, count = _bytes_of(model), sum(each.numel() for each in model.parameters())
    yield (
        f"model     {options.layers} layers, {count / 1e9:.2f} B parameters, {options.dtype},"
        f" {weights / 2**30:.1f} GiB, made in {made:.1f} s"
    )
    speed = copy_speed(device, options.copy * 2**20)
    if device.type == "cuda":  # the copy's buffers are not the model's
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    yield f"copy      {speed / 1e9:,.0f} GB/s, read and written"

    prompt = random.Random(0).choices(range(shape.words), k=options.prompt)
    one_answer(chat, prompt, min(options.tokens, 32))  # the warm-up
    answers = [one_answer(chat, prompt, options.tokens) for _ in range(options.repeat)]
    waited = statistics.median(first for first, _ in answers)
    rates = sorted(rate for _, rate in answers)
    rate = statistics.median(rates)
    yield (
        f"prefill   {options.prompt:,} tokens, the first token after {waited:.2f} s:"
        f" {options.prompt / waited:,.0f} tokens/s"
    )
    yield f"decode    {rate:.1f} tokens/s ({rates[0]:.1f} to {rates[-1]:.1f}), one stream, greedy"

    # Of the input embedding one row a token is read, of everything else all.
    read = weights - shape.rows * shape.hidden * dtype.itemsize
    cached = chat.checkpoint.kv_values_per_token * dtype.itemsize
    bytes_a_token = read + cached * (options.prompt + options.tokens / 2)
    floor = speed / bytes_a_token
    yield (
        f"floor     {bytes_a_token / 1e9:.2f} GB a token at the copy's speed: {floor:.1f} tokens/s;"
        f" decode reaches {rate / floor:.2f} of it"
    )
    if device.type == "cuda":
        yield f"memory    {torch.cuda.max_memory_reserved(device) / 2**30:.1f} GiB at most"
    stock_rate(model, prompt, 8)
    stock, spread = _repeated(lambda: stock_rate(model, prompt, options.tokens), options.repeat)
    yield f"generate  {stock:.1f} tokens/s ({spread}) by transformers; ratio {rate / stock:.2f}"


def _name(device: torch.device) -> str:
    if device.type != "cuda":
        return f"no GPU: {device.type}"
    about = torch.cuda.get_device_properties(device)
    return f"{about.name}, {about.total_memory / 2**30:.1f} GiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    card = torch.accelerator.current_accelerator()
    parser.add_argument("--device", default="cpu" if card is None else card.type)
    parser.add_argument("--dtype", default="bfloat16", choices=sorted(DTYPES))
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--small", action="store_true", help="narrow layers, for a smoke test")
    parser.add_argument("--prompt", type=int, default=512, help="tokens")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of an answer")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--copy", type=int, default=2048, help="MiB that are copied")
    options = parser.parse_args()
    for line in report(options):
        print(line, flush=True)


if __name__ == "__main__":
    main()
