"""What a directory of safetensors (or PyTorch) weights is: recognised and measured without torch.

Three kinds are served: Qwen-1 as published (its weights are renamed while they are loaded), Qwen-1
as `convert` writes it, and Qwen1.5, 2, 2.5 and 3 as published. Everything the files state is
checked. Knows nothing of downloading (`store`), of devices or of prompts.
"""

import atexit
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from qwen_openai.errors import StartupError
from qwen_openai.models import layout
from qwen_openai.models.describe import CHATML_TEMPLATE, write_whole
from qwen_openai.models.document import AGAIN, Document, read_document
from qwen_openai.models.shards import find_shards, size_and_dtype
from qwen_openai.models.tiktoken_file import (
    CONTROL_TOKENS,
    RANKS,
    VOCABULARY_FILE,
    build_from_tiktoken,
)

CONFIG_FILE = "config.json"
# The key in config.json by which a converted directory is known; see `qwen1.config`.
MARKER = "qwen_openai"
QWEN1 = "qwen1"
# What its "source" is in a directory that `dequantise` wrote.
FROM_GGUF = "gguf"

# ChatML as Qwen-1's own code writes it: always a system turn, no line feed behind the last turn.
QWEN1_TEMPLATE = (
    "{% if messages and messages[0]['role'] == 'system' %}{% set turns = messages %}{% else %}"
    "{% set turns = [{'role': 'system', 'content': 'You are a helpful assistant.'}]"
    " + messages %}{% endif %}"
    "{% for turn in turns %}{% if not loop.first %}{{ '\\n' }}{% endif %}"
    "{{ '<|im_start|>' + turn['role'] + '\\n' + turn['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n<|im_start|>assistant\\n' }}{% endif %}"
)

_RAW_TYPE, _RAW_ARCHITECTURE = "qwen", "QWenLMHeadModel"
_NATIVE_TYPES = ("qwen2", "qwen3", "qwen2_moe", "qwen3_moe")
_OTHERWISE = (
    "Use a Qwen-7B-Chat, a Qwen1.5, Qwen2, Qwen2.5 or Qwen3 directory for text, or a GGUF file."
)
# Raise it when the same qwen.tiktoken is to give another tokenizer.json, or to be refused.
_TOKENIZER_FORMAT = 2
# Buffers that older versions of Qwen-1's code saved along; they are computed, not learnt.
_BUFFER = re.compile(
    r"transformer\.(?:h\.\d+\.attn\.)?"
    r"(?:bias|masked_bias|logn_tensor|rotary_emb\.inv_freq|rotary_emb\.ntk_alphas?)"
)
# What transformers takes for a Qwen that states none.
_VOCABULARY = 151_936
_MOST_TOKENS = 2**27
_MOST_LAYERS = 4096
_MOST_WIDTH = 2**24


@dataclass(frozen=True, slots=True)
class Qwen1Facts:
    """What of Qwen-1's attention a stock Qwen2 does not know: past ``seq_length`` tokens, the
    length it was trained for, it scales its rotary base (NTK) and its queries (logn)."""

    seq_length: int
    use_dynamic_ntk: bool
    use_logn_attn: bool


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A directory that can be served.

    ``name`` is what clients call it. ``raw``: it has Qwen-1's weight names, so they are converted
    while loading. ``qwen1`` is set for a raw and for a converted Qwen-1. ``context_length`` counts
    prompt and answer, in tokens. ``kv_values_per_token`` are the numbers cached for a token over
    all layers; times the bytes of a number, the memory. ``weight_bytes`` and ``dtype``
    ("bfloat16", "float16" or "float32") are those on disk. ``from_gguf``: its numbers were
    quantised, and float16 is no more than what keeps them finest.
    """

    name: str
    folder: Path
    raw: bool
    qwen1: Qwen1Facts | None
    context_length: int
    kv_values_per_token: int
    weight_bytes: int
    dtype: str
    from_gguf: bool = False


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a folder of weights that are no GGUF; a look at names only."""
    return (path / CONFIG_FILE).is_file() and not any(path.glob("*.[gG][gG][uU][fF]"))


def read_config(folder: Path) -> Document:
    """Return a directory's config.json. Raises StartupError when it is of a model that is not
    served, whatever else the directory holds."""
    config = read_document(
        folder / CONFIG_FILE,
        fix="Give a directory with config.json, weights and tokenizer, or a GGUF file.",
    )
    if not _is_raw(config):
        _check_native(config)
    if config.values.get("quantization_config") is not None:
        raise StartupError(
            f"{folder} holds quantised weights (quantization_config in its config.json), which"
            " cannot be converted or run here.",
            fix="Take the model's variant that is not quantised, or a GGUF of it.",
        )
    return config


def read_checkpoint(folder: Path, name: str | None = None) -> Checkpoint:
    """Return what ``folder`` is; ``name`` is that of the folder unless given.

    Raises StartupError when it is not a model that is served, or is incomplete or damaged.
    """
    config = read_config(folder)
    raw = _is_raw(config)
    facts = _raw_facts(config) if raw else _marked_facts(config)
    shards = find_shards(folder)
    if shards.format == "bin" and not raw:
        raise StartupError(
            f"{folder} holds its weights as PyTorch pickles (.bin), which are read of a Qwen-1"
            " alone.",
            fix="Take the model's safetensors.",
        )
    weight_bytes, dtype = size_and_dtype(
        shards, config, lambda tensor: not (raw and is_computed(tensor))
    )
    _check_tokenizer(folder, VOCABULARY_FILE if raw else "tokenizer.json")
    return Checkpoint(
        name=name or folder.resolve().name,
        folder=folder,
        raw=raw,
        qwen1=facts,
        context_length=_context_length(config, facts),
        kv_values_per_token=_kv_values(config, raw),
        weight_bytes=weight_bytes,
        dtype=dtype,
        from_gguf=_is_from_gguf(config),
    )


def asks_for_code(folder: Path) -> bool:
    """Whether the directory's config.json names Python code of its own to be run. It never is."""
    try:
        return bool(read_document(folder / CONFIG_FILE).values.get("auto_map"))
    except StartupError:
        return False


def is_computed(tensor: str) -> bool:
    """Whether a tensor of a Qwen-1, by its name, is a buffer: no weight, of whatever type."""
    return _BUFFER.fullmatch(tensor) is not None


def tokenizer_file(checkpoint: Checkpoint, home: Path | None = None, *, ranks: int = RANKS) -> Path:
    """Return the checkpoint's `tokenizer.json`: its own, or, for a Qwen-1 as published, the one
    made of `qwen.tiktoken` below the cache folder ``home``, once.

    Without a ``home`` it is that of QWEN_OPENAI_HOME, else the user's cache; and where that cannot
    be written, the file is this process's own, gone when it ends. ``ranks`` is how many tokens
    `qwen.tiktoken` must have. Raises StartupError when the tokenizer cannot be read, made or
    written, and when it has tokens that the model has no row for.
    """
    if not checkpoint.raw:
        own = checkpoint.folder / "tokenizer.json"
        check_rows(read_document(checkpoint.folder / CONFIG_FILE), own, _most_id(own))
        return own
    vocabulary = (checkpoint.folder / VOCABULARY_FILE).resolve()
    config = read_document(checkpoint.folder / CONFIG_FILE)
    check_rows(config, vocabulary, ranks + len(CONTROL_TOKENS) - 1)
    root = home or layout.stated_home()
    try:
        return _kept_tokenizer(vocabulary, root, ranks)
    except OSError as exc:
        if home is None:
            return _own_tokenizer(vocabulary, ranks)
        raise StartupError(
            f"The tokenizer made of {vocabulary} cannot be kept in {root}: {exc.strerror or exc}.",
            fix="Make room there, or set QWEN_OPENAI_HOME to a directory you may write to.",
        ) from exc


def check_rows(config: Document, tokenizer: Path, most_id: int) -> None:
    """Raise StartupError unless the model has a row for each id up to ``most_id``."""
    rows = config.whole("vocab_size", _VOCABULARY)
    if most_id >= rows:
        config.refuse(
            f"its vocab_size is {rows}, too few for {tokenizer.name}, whose ids go up to {most_id}"
        )


def _most_id(tokenizer: Path) -> int:
    """Return the highest id in a `tokenizer.json`; -1 where none is stated as BPE states it."""
    document = read_document(tokenizer)
    model, added = document.within("model"), document.values.get("added_tokens")
    tokens = model and model.within("vocab")
    ids = list(tokens.values.values()) if tokens else []
    if isinstance(added, list):
        ids += [each.get("id") for each in added if isinstance(each, dict)]
    return max((each for each in ids if isinstance(each, int)), default=-1)


def _kept_tokenizer(vocabulary: Path, home: Path, ranks: int) -> Path:
    """Return the tokenizer out of the cache, put there unless it is. Raises OSError."""
    folder = layout.local_folder(vocabulary, home)
    made = folder / f"tokenizer.{_TOKENIZER_FORMAT}.json"
    if made.is_file():
        return made
    lock = layout.lock_file(folder, home)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if not made.is_file():
            content = build_from_tiktoken(vocabulary, ranks)
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(made, content)
            layout.drop_older(folder)
    return made


def _own_tokenizer(vocabulary: Path, ranks: int) -> Path:
    """Return the tokenizer in a folder that goes with this process. Raises StartupError."""
    content = build_from_tiktoken(vocabulary, ranks)
    try:
        folder = Path(tempfile.mkdtemp(prefix="qwen-openai-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        made = folder / "tokenizer.json"
        write_whole(made, content)
    except OSError as exc:
        raise StartupError(
            f"The tokenizer made of {vocabulary} can be kept nowhere: {exc.strerror or exc}.",
            fix="Make room, or set QWEN_OPENAI_HOME to a directory you may write to.",
        ) from exc
    return made


def chat_template(checkpoint: Checkpoint) -> str:
    """Return the chat template: the directory's own, in `chat_template.jinja` or in
    `tokenizer_config.json`, else ChatML as its generation writes it.

    Raises StartupError when a file that is there cannot be read.
    """
    fallback = QWEN1_TEMPLATE if checkpoint.qwen1 is not None else CHATML_TEMPLATE
    if checkpoint.raw:
        return fallback
    apart = checkpoint.folder / "chat_template.jinja"
    try:
        if apart.is_file():
            return apart.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise StartupError(f"{apart} cannot be read: {exc}.", fix=AGAIN) from exc
    beside = checkpoint.folder / "tokenizer_config.json"
    if not beside.is_file():
        return fallback
    return _stated_template(read_document(beside).values.get("chat_template")) or fallback


def _stated_template(stated: object) -> str | None:
    """A template, or of several, each with a name, the default one."""
    if isinstance(stated, str):
        return stated
    for each in stated if isinstance(stated, list) else ():
        if isinstance(each, dict) and each.get("name") == "default":
            template = each.get("template")
            return template if isinstance(template, str) else None
    return None


def _is_raw(config: Document) -> bool:
    """Whether a config.json is that of a Qwen-1 as published."""
    return config.text("model_type") == _RAW_TYPE or _RAW_ARCHITECTURE in _architectures(config)


def _architectures(config: Document) -> list[object]:
    stated = config.values.get("architectures")
    return stated if isinstance(stated, list) else []


def _check_native(config: Document) -> None:
    if config.text("model_type") not in _NATIVE_TYPES:
        stated = config.text("model_type") or ", ".join(map(str, _architectures(config))) or "none"
        raise StartupError(
            f"{config.path.parent} is a model of the architecture {stated[:60]!r}, which is not"
            " served.",
            fix=_OTHERWISE,
        )


def _raw_facts(config: Document) -> Qwen1Facts:
    """Read Qwen-1's facts, and refuse its variants that are something else."""
    for sense, key in (("pictures", "visual"), ("sounds", "audio")):
        if config.values.get(key) is not None:
            raise StartupError(
                f"{config.path.parent} is a Qwen-1 model for {sense}, which is not served.",
                fix=_OTHERWISE,
            )
    return _facts(config)


def _marked_facts(config: Document) -> Qwen1Facts | None:
    marker = config.within(MARKER)
    if marker is None or marker.text("generation") != QWEN1:
        return None
    return _facts(marker)


def _is_from_gguf(config: Document) -> bool:
    marker = config.within(MARKER)
    return marker is not None and marker.text("source") == FROM_GGUF


def _facts(stated: Document) -> Qwen1Facts:
    return Qwen1Facts(
        seq_length=stated.whole("seq_length", most=_MOST_TOKENS),
        use_dynamic_ntk=stated.flag("use_dynamic_ntk", False),
        use_logn_attn=stated.flag("use_logn_attn", False),
    )


def _context_length(config: Document, facts: Qwen1Facts | None) -> int:
    """A native model's own limit. Qwen-1's is its trained length, unless both rules that take it
    further are on."""
    if facts is None:
        return config.whole("max_position_embeddings", most=_MOST_TOKENS)
    if not (facts.use_dynamic_ntk and facts.use_logn_attn):
        return facts.seq_length
    marker = config.within(MARKER)
    stated = (
        config.whole("max_position_embeddings", facts.seq_length, most=_MOST_TOKENS)
        if marker is None
        else marker.whole("max_context", facts.seq_length, most=_MOST_TOKENS)
    )
    return max(stated, facts.seq_length)


def _kv_values(config: Document, raw: bool) -> int:
    """Keys and values of one token, counted in numbers, over all layers."""
    layers = config.whole("num_hidden_layers", most=_MOST_LAYERS)
    heads = config.whole("num_attention_heads", most=_MOST_WIDTH)
    hidden = config.whole("hidden_size", most=_MOST_WIDTH)
    if hidden % heads:
        config.refuse(f"its hidden_size {hidden} is not a multiple of its {heads} heads")
    if raw:  # no wider or narrower head can be; see `qwen1.config`
        return 2 * layers * hidden
    width = config.whole("head_dim", hidden // heads, most=_MOST_WIDTH)
    kv_heads = config.whole("num_key_value_heads", heads, most=heads)
    return 2 * layers * kv_heads * width


def _check_tokenizer(folder: Path, file: str) -> None:
    if not (folder / file).is_file() or not os.access(folder / file, os.R_OK):
        raise StartupError(
            f"{folder} holds no tokenizer: there is no {file} that can be read.",
            fix=AGAIN,
        )
