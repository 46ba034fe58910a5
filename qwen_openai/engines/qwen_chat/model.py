"""QwenChat: a Qwen of any generation with the first one's `chat` and `chat_stream`.

The public class of the library, and what the `qwen_chat` engine runs. It puts the room's parts
together: loading, prompt, token loop, text.
"""

import os
import threading
from collections.abc import Collection, Generator, Mapping, Sequence
from pathlib import Path

import torch
from transformers import PretrainedConfig, PreTrainedModel

from qwen_openai.adapter.history import from_history
from qwen_openai.core import Finish, Sampling, Text
from qwen_openai.engines.masks import TokenMasks
from qwen_openai.engines.qwen_chat.arguments import Arguments, read_arguments, read_stop_ids
from qwen_openai.engines.qwen_chat.generation import TokenLoop
from qwen_openai.engines.qwen_chat.pairs import Pairs, newest, read_pairs, valid
from qwen_openai.engines.qwen_chat.reply import Reply, ReplyStream
from qwen_openai.engines.torch_model.describe import family_ends
from qwen_openai.engines.torch_model.devices import first_device
from qwen_openai.engines.torch_model.limits import Limits
from qwen_openai.engines.torch_model.load import DeviceMap, Dtype, Loaded, load
from qwen_openai.engines.torch_model.spelling import pieces
from qwen_openai.errors import InvalidRequest
from qwen_openai.models.checkpoint import chat_template
from qwen_openai.prompting.bpe import TooLong
from qwen_openai.prompting.qwen1 import Qwen1Renderer
from qwen_openai.prompting.render import Renderer
from qwen_openai.prompting.template import ChatTemplate

# The original's own keywords for the type of number.
_FLAGS = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
# Keywords that say how to download, or how to load: a directory is just read.
_WITHOUT_EFFECT = frozenset(
    (
        "cache_dir",
        "code_revision",
        "force_download",
        "local_files_only",
        "low_cpu_mem_usage",
        "resume_download",
        "revision",
        "token",
        "use_flash_attn",
    )
)
# A prompt that is too long is still counted exactly up to this many tokens over the context.
_COUNTED_BEYOND = 32_768


class QwenChat:
    """A chat model: Qwen-1 as published or converted, Qwen1.5, 2, 2.5 or 3.

    For Qwen-1, `chat` and `chat_stream` give what the model's own code gave where that was right.
    Mended here:

    - the caller's `history` and `stop_words_ids` are never altered; a new history is returned;
    - a reply cut by length keeps its last token;
    - a prompt that is not in Unicode's form NFC takes nothing off the reply;
    - `max_length` means prompt and answer together, in `chat` and in `chat_stream`; with
      `max_new_tokens` beside it, the tighter of the two holds;
    - `temperature=0` is greedy, whole numbers are numbers;
    - stop words are matched on the reply's text, never on the prompt, and trimmed off;
    - `chat_stream` honours `do_sample=False`, and takes the arguments that `chat` takes: unknown
      and impossible ones are refused by name when it is called;
    - why an answer ended, and its tokens, can be read (`Reply`, `ReplyStream`);
    - white space at the ends of a reply stays, in `chat` as in `chat_stream`;
    - beyond the trained length, no request changes another's tokens.

    One object may be used by several threads, with several streams open: they take turns, one
    forward pass each.
    """

    def __init__(self, loaded: Loaded) -> None:
        """Use what `from_pretrained` loads.

        ``generation_config`` may be set: any object with attributes, or a dict. ``context`` is
        tokens of prompt and answer together.
        """
        self.checkpoint = loaded.checkpoint
        self.renderer = loaded.renderer
        self.context = loaded.checkpoint.context_length
        self.generation_config: object = loaded.model.generation_config
        self._model = loaded.model
        self._bpe = loaded.bpe
        self._loop = TokenLoop(loaded.model, loaded.long_context)
        self._renderers: dict[bool, Renderer | Qwen1Renderer] = {}
        self._masks: TokenMasks | None = None
        self._making = threading.Lock()
        self._stop_ids = family_ends(self.checkpoint, self.renderer)

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        *,
        device_map: DeviceMap = "auto",
        dtype: Dtype = "auto",
        trust_remote_code: bool | None = None,
        home: str | os.PathLike[str] | None = None,
        **kwargs: object,
    ) -> "QwenChat":
        """Load a directory of weights, or by its name (qwen/Qwen-7B-Chat) a model that
        `qwen-openai pull` has fetched; nothing is fetched here.

        ``device_map`` is accelerate's; "auto" takes the cards there are, else the CPU. ``dtype`` is
        a name or a torch.dtype; "auto" is what is on disk (float16 where the card knows no
        bfloat16), and float32 on a CPU. The older spellings ``torch_dtype=`` and ``bf16=True``,
        ``fp16=True``, ``fp32=True`` are taken too. ``trust_remote_code`` is accepted and has no
        effect: code that comes with a model is never run. Nor has what says how to download or to
        load: revision, code_revision, cache_dir, force_download, resume_download, local_files_only,
        token, low_cpu_mem_usage, use_flash_attn. ``home`` is the cache folder.

        Raises StartupError when the directory is none that can be run or a device is not there,
        TypeError for an unknown keyword.
        """
        place = None if home is None else Path(home)
        return cls(load(path, device_map, _dtype(dtype, kwargs), place))

    @property
    def model(self) -> PreTrainedModel:
        """The transformers model: a stock class, Qwen2ForCausalLM for a Qwen-1."""
        return self._model

    @property
    def config(self) -> PretrainedConfig:
        """The transformers model's config."""
        config: PretrainedConfig = self._model.config
        return config

    @property
    def device(self) -> torch.device:
        """Where the model is; with several devices, where it begins."""
        return first_device(self._model)

    @property
    def dtype(self) -> torch.dtype:
        """The type of number that the model computes with."""
        dtype: torch.dtype = self._model.dtype
        return dtype

    @property
    def prefill(self) -> int:
        """How many tokens of a prompt are read at once: 512 on a card, 128 on a CPU. It may be set,
        for answers that begin later. An answer can be cancelled only between two such pieces."""
        return self._loop.piece

    @prefill.setter
    def prefill(self, tokens: int) -> None:
        if tokens < 1:
            raise ValueError(f"prefill must be at least 1 token, not {tokens}")
        self._loop.piece = tokens

    def eval(self) -> "QwenChat":
        """Return the model, which is always ready to answer."""
        return self

    def chat(
        self,
        tokenizer: object,
        query: str,
        history: Sequence[Sequence[str]] | None = None,
        system: str | None = None,
        stop_words_ids: object = None,
        generation_config: object = None,
        **kwargs: object,
    ) -> tuple[Reply, Pairs]:
        """Return the answer, and a new history that ends with it.

        ``tokenizer`` may be the original, a converted one or None: the model's own is used.
        ``history`` are pairs of query and answer. ``system`` None is the model's own default, the
        empty string an empty system turn. ``stop_words_ids`` are lists of token ids. Where
        ``generation_config`` is None, the object's own is used; keywords come before either:
        max_new_tokens, max_length, min_new_tokens, do_sample, temperature, top_p, top_k, min_p,
        repetition_penalty, presence_penalty, frequency_penalty, seed, stop_words, max_window_size,
        eos_token_id, append_history (False: the history comes back without the new pair),
        enable_thinking (for a chat template that knows it, such as Qwen3's). pad_token_id and
        use_cache have no effect; other keywords of transformers' `generate` are taken with values
        that ask for nothing. Without any limit the answer may fill the context. Pairs that are too
        many for ``max_window_size`` are left out, the oldest first: for Qwen-1 as its own code
        counts, for others so that the whole prompt is shorter.

        Raises ValueError and TypeError, naming the argument, and ValueError when the prompt leaves
        no room for an answer.
        """
        pairs = read_pairs(history)
        arguments = self._arguments(stop_words_ids, generation_config, kwargs)
        reply = self._open(query, pairs, system, arguments).drain()
        return reply, [*pairs, (query, str(reply))] if arguments.append_history else pairs

    def chat_stream(
        self,
        tokenizer: object,
        query: str,
        history: Sequence[Sequence[str]] | None = None,
        system: str | None = None,
        stop_words_ids: object = None,
        generation_config: object = None,
        **kwargs: object,
    ) -> ReplyStream:
        """As `chat`, but return an iterator of the text as it grows; the last value is the answer.

        What is wrong with the arguments is raised by this call.
        """
        arguments = self._arguments(stop_words_ids, generation_config, kwargs)
        return self._open(query, read_pairs(history), system, arguments)

    def run(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        max_tokens: int,
        *,
        index: int = 0,
        stop_ids: Collection[int] = (),
        grammar: str | None = None,
    ) -> Generator[Text | Finish, None, None]:
        """Answer a prompt of ids: one step of the model for each `next`.

        Yields an empty Text of no tokens for each piece of the prompt, so that a cancelled answer
        can end, then a Text for each token, perhaps empty, and at last Finish; all have ``index``.
        ``prompt`` and ``max_tokens`` fit into ``context``. ``stop_ids`` end the answer too, under
        ``ignore_eos`` as well. ``grammar`` is one for llguidance, complete. Stop strings are not
        looked for. Closing the generator frees its memory. Raises EngineFailed.
        """
        limits = Limits.of(sampling, max_tokens, self._ends(), stop_ids)
        mask = None if grammar is None else self.masks().start(grammar)
        tokens = self._loop.run(prompt, sampling, limits, mask)
        count = 0
        for piece in pieces(tokens, self._bpe, limits.stop, max_tokens):
            count += piece.token is not None
            logprobs = () if piece.logprob is None else (piece.logprob,)
            yield Text(index, piece.text, int(piece.token is not None), logprobs)
            if piece.finish is not None:
                yield Finish(index, piece.finish, count)

    def masks(self) -> TokenMasks:
        """Return what holds answers to grammars, made at the first call: that takes a second.

        Raises EngineFailed when no token ends an answer."""
        with self._making:
            if self._masks is None:
                self._masks = TokenMasks(self._bpe, self.config.vocab_size, self._ends())
            return self._masks

    def _ends(self) -> frozenset[int]:
        """The ids at which the model itself ends an answer."""
        return self._stop_ids | read_stop_ids(self.generation_config)

    def _arguments(
        self, stop_words_ids: object, generation_config: object, keywords: Mapping[str, object]
    ) -> Arguments:
        config = self.generation_config if generation_config is None else generation_config
        return read_arguments(config, stop_words_ids, keywords, self._bpe)

    def _open(
        self, query: str, pairs: Pairs, system: str | None, arguments: Arguments
    ) -> ReplyStream:
        for name, value in (("query", query), ("system", "" if system is None else system)):
            if not isinstance(value, str):
                raise TypeError(f"{name} must be a string, not {type(value).__name__}")
        try:
            prompt, dropped = self._prompt(query, pairs, system, arguments)
        except InvalidRequest as exc:
            raise ValueError(exc.message) from exc
        max_tokens = self._room(len(prompt), arguments)
        limits = Limits(max_tokens, self._stop_ids | arguments.stop_ids, arguments.min_new_tokens)
        tokens = self._loop.run(prompt, arguments.sampling, limits)
        return ReplyStream(
            pieces(tokens, self._bpe, limits.stop, max_tokens),
            arguments.stop_words,
            prompt_tokens=len(prompt),
            dropped_pairs=dropped,
        )

    def _prompt(
        self, query: str, pairs: Pairs, system: str | None, arguments: Arguments
    ) -> tuple[list[int], int]:
        """Return the ids of the prompt and how many pairs are not in it."""
        question, rules = valid(query), None if system is None else valid(system)
        history = [(valid(asked), valid(answered)) for asked, answered in pairs]
        renderer = self._renderer(arguments.enable_thinking)
        kept = len(history)
        if arguments.max_window_size is not None:
            kept = newest(renderer, question, history, rules, arguments.max_window_size)
        messages = from_history(history[len(history) - kept :], question, rules)
        try:
            ids = renderer.render_within(messages, self.context + _COUNTED_BEYOND)
        except TooLong as exc:
            raise ValueError(self._too_long(f"at least {exc.at_least}")) from None
        return ids, len(history) - kept

    def _renderer(self, enable_thinking: bool | None) -> Renderer | Qwen1Renderer:
        """Return what makes prompts in which the template's variable of that name is set.

        Qwen-1 has no such template, and no thoughts.
        """
        if enable_thinking is None or self.checkpoint.qwen1 is not None:
            return self.renderer
        renderer = self._renderers.get(enable_thinking)
        if renderer is None:
            line = f"{{% set enable_thinking = {str(enable_thinking).lower()} %}}"
            renderer = Renderer(self._bpe, ChatTemplate(line + chat_template(self.checkpoint)))
            self._renderers[enable_thinking] = renderer
        return renderer

    def _room(self, prompt_tokens: int, arguments: Arguments) -> int:
        """Return how many tokens the answer may have, at least one."""
        if prompt_tokens >= self.context:
            raise ValueError(self._too_long(str(prompt_tokens)))
        room = self.context - prompt_tokens
        if arguments.max_length is not None:
            if prompt_tokens >= arguments.max_length:
                raise ValueError(
                    f"max_length is {arguments.max_length} tokens for prompt and answer together,"
                    f" and the prompt alone has {prompt_tokens}: raise it, or shorten the prompt"
                )
            room = min(room, arguments.max_length - prompt_tokens)
        return room if arguments.max_new_tokens is None else min(room, arguments.max_new_tokens)

    def _too_long(self, tokens: str) -> str:
        return (
            f"the prompt has {tokens} tokens, and the model's context is {self.context} for prompt"
            " and answer together: shorten the history, or lower max_window_size"
        )


def _dtype(dtype: Dtype, keywords: dict[str, object]) -> Dtype:
    """Return the type of number that is asked for, in whichever of its spellings."""
    told = [dtype] if dtype != "auto" else []
    for name, value in keywords.items():
        if name == "torch_dtype":
            if isinstance(value, str | torch.dtype):
                told.append(value)
            elif value is not None:
                raise TypeError(f"torch_dtype must be a name or a torch.dtype, not {value!r}")
        elif name in _WITHOUT_EFFECT:
            continue
        elif name not in _FLAGS:
            raise TypeError(f"from_pretrained() has no argument {name!r}")
        elif value:
            told.append(_FLAGS[name])
    if len(told) > 1:
        raise ValueError("more than one type of number is asked for: " + ", ".join(map(str, told)))
    return told[0] if told else "auto"
