"""What a model on disk is: read from its GGUF once, kept beside it as model.json.

Writes `tokenizer.json` and `model.json` atomically, model.json last, so that its presence means
that both are there. Knows nothing of downloading (`store`) or of prompts (`prompting`).
"""

import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from qwen_openai.errors import StartupError
from qwen_openai.models.gguf import GGUF, read_gguf, unusable
from qwen_openai.models.tokenizer_file import build_tokenizer

# Raise it when the meaning of either file changes: an older description is then made anew.
_FORMAT = 1
_DESCRIPTION_FILE = "model.json"
_TOKENIZER_FILE = "tokenizer.json"
_F16_BYTES = 2

# ChatML as Qwen1.5 and Qwen2 write it, for a GGUF that carries no template of its own.
CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Description:
    """The facts of one model. ``context_length`` is what it was trained for, in tokens;
    ``kv_bytes_per_token`` assumes a cache in float16; ``weight_bytes`` is the size of the file."""

    name: str
    architecture: str
    context_length: int
    kv_bytes_per_token: int
    weight_bytes: int
    template: str
    licence: str | None


def describe(weights: Path, into: Path) -> Description:
    """Read the GGUF ``weights`` and write ``into``/tokenizer.json and ``into``/model.json.

    Raises StartupError when the file is truncated, inconsistent or of a kind we cannot serve, and
    when the two files cannot be written.
    """
    gguf = read_gguf(weights)
    description = _description(gguf)
    tokenizer = build_tokenizer(gguf)
    document = {"format": _FORMAT} | asdict(description)
    try:
        into.mkdir(parents=True, exist_ok=True)
        write_whole(into / _TOKENIZER_FILE, tokenizer)
        write_whole(into / _DESCRIPTION_FILE, orjson.dumps(document, option=orjson.OPT_INDENT_2))
    except OSError as exc:
        raise StartupError(
            f"The description of {weights} cannot be written to {into}: {exc.strerror or exc}.",
            fix="Make room there, or set QWEN_OPENAI_HOME to a directory you may write to.",
        ) from exc
    return description


def load_description(directory: Path) -> Description | None:
    """Return what `describe` wrote into ``directory``; None when it is absent, damaged or older."""
    if not (directory / _TOKENIZER_FILE).is_file():
        return None
    try:
        document = orjson.loads((directory / _DESCRIPTION_FILE).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    if not isinstance(document, dict) or document.pop("format", None) != _FORMAT:
        return None
    try:
        return Description(**document)
    except TypeError:
        return None


def _description(gguf: GGUF) -> Description:
    if (gguf.number("split.count") or 1) > 1:
        raise unusable(gguf.path, "it is one part of a model that was split into several files")
    architecture = gguf.text("general.architecture")
    if not architecture:
        raise unusable(gguf.path, "it does not name its architecture")
    template = gguf.text("tokenizer.chat_template") or CHATML_TEMPLATE
    if "<|im_start|>" in template and "<|im_start|>" not in _control_tokens(gguf):
        raise unusable(gguf.path, "its vocabulary has no control token <|im_start|>")
    return Description(
        name=_name(gguf),
        architecture=architecture,
        context_length=_fact(gguf, f"{architecture}.context_length"),
        kv_bytes_per_token=_kv_bytes_per_token(gguf, architecture),
        weight_bytes=gguf.file_bytes,
        template=template,
        licence=gguf.text("general.license"),
    )


def _name(gguf: GGUF) -> str:
    """The name by GGUF's naming convention: base name, size, fine-tune; else what there is."""
    parts = [gguf.text(f"general.{key}") for key in ("basename", "size_label", "finetune")]
    if parts[0]:
        return "-".join(part for part in parts if part)
    return (gguf.text("general.name") or gguf.path.stem).replace(" ", "-")


def _kv_bytes_per_token(gguf: GGUF, architecture: str) -> int:
    """Bytes of keys and values for one token over all layers, in float16."""
    layers = _fact(gguf, f"{architecture}.block_count")
    heads = _fact(gguf, f"{architecture}.attention.head_count")
    kv_heads = gguf.number(f"{architecture}.attention.head_count_kv") or heads
    width = _fact(gguf, f"{architecture}.embedding_length") // heads
    keys = gguf.number(f"{architecture}.attention.key_length") or width
    values = gguf.number(f"{architecture}.attention.value_length") or width
    return layers * kv_heads * (keys + values) * _F16_BYTES


def _fact(gguf: GGUF, key: str) -> int:
    number = gguf.number(key)
    if not number:
        raise unusable(gguf.path, f"it does not state {key}")
    return number


def _control_tokens(gguf: GGUF) -> set[str]:
    tokens = gguf.strings("tokenizer.ggml.tokens")
    kinds = gguf.numbers("tokenizer.ggml.token_type")
    return {token for token, kind in zip(tokens, kinds, strict=False) if kind != 1}


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` so that ``path`` holds either all of it or what it held before."""
    # Not mkstemp, whose files only their owner may read: a cache may be shared between users.
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
