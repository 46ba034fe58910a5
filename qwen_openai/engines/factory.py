"""Settings and model files to an engine, not yet started. The one place that knows all engines.

Engine modules are imported only when chosen, so that each costs nothing to those who use another.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from qwen_openai.engines.base import Engine
from qwen_openai.errors import StartupError
from qwen_openai.families import family_of
from qwen_openai.models.checkpoint import Checkpoint, asks_for_code
from qwen_openai.models.progress import Progress, Untold
from qwen_openai.models.store import ModelFiles
from qwen_openai.prompting.bpe import Bpe
from qwen_openai.prompting.render import Renderer
from qwen_openai.prompting.template import ChatTemplate
from qwen_openai.settings import Settings

if TYPE_CHECKING:
    from qwen_openai.engines.qwen_chat.model import QwenChat
    from qwen_openai.engines.transformers.startup import Served

# What torch's engines import, in the order in which it is said to be missing.
_NEEDED = ("torch", "transformers", "accelerate", "safetensors")

# Settings that not every engine looks at.
_OF_LLAMACPP = ("prompt_cache", "prompt_cache_mib")
_OF_TRANSFORMERS = ("answer_timeout", "on_engine_loss")
_OF_TORCH = ("device_map", "dtype")
_UNUSED_BY = {
    "llamacpp": (*_OF_TRANSFORMERS, *_OF_TORCH),
    "transformers": _OF_LLAMACPP,
    "qwen_chat": (*_OF_LLAMACPP, *_OF_TRANSFORMERS),
}

# More than these divide a processor's time too finely.
_MOST_SLOTS_OF_LLAMACPP = 64

_DEVICE_MAP = re.compile(
    r"auto|balanced|balanced_low_0|sequential|cpu|(?:cuda|mps|xpu|npu|mlu|musa|hpu)(?::\d+)?"
)

Report = Callable[[int, int], None]
"""Told, from the engine's thread, how many weights of how many are loaded."""


def create_engine(
    settings: Settings, files: ModelFiles | Checkpoint | None, report: Report | None = None
) -> Engine:
    """Make the engine that ``settings`` ask for; ``files`` is None for the fake engine alone.
    ``report`` is called while an engine loads that can say how far it is.

    Raises StartupError when the model does not fit in memory, when the engine asked for cannot run
    it, and when a library that it needs is not installed.
    """
    if settings.engine == "fake":
        from qwen_openai.engines.fake import FakeEngine

        return FakeEngine(
            context=settings.context or 8192,
            slots=settings.slots or 16,
            default_max_tokens=settings.default_max_tokens,
        )
    if files is None:
        raise StartupError(
            "No model was given.", fix="Name one: `qwen-openai serve qwen2.5-coder-0.5b`."
        )
    if isinstance(files, ModelFiles) and settings.engine == "transformers":
        return _transformers(settings, files, report)
    if isinstance(files, Checkpoint):
        if settings.engine == "llamacpp":
            raise StartupError(
                f"The engine llamacpp runs GGUF files; {files.name} is a directory of safetensors.",
                fix="Leave --engine out, or give the model's GGUF file.",
            )
        if settings.engine == "qwen_chat":
            return _qwen_chat(settings, files, report)
        return _transformers(settings, files, report)
    if settings.engine == "qwen_chat":
        raise StartupError(
            f"The engine qwen_chat runs directories of safetensors; {files.name} is a GGUF file.",
            fix="Leave --engine out, or give the model's directory.",
        )
    return _llamacpp(settings, files)


def made_ready(
    settings: Settings, files: ModelFiles | Checkpoint, progress: Progress
) -> ModelFiles | Checkpoint:
    """Return the files in the form that the engine takes: for the engine transformers a GGUF is
    made a directory of safetensors, once, which takes seconds for a billion weights.

    Raises StartupError.
    """
    if isinstance(files, ModelFiles) and settings.engine == "transformers":
        _require_libraries(files.name, "gguf")
        return _dequantised(settings, files, progress)
    return files


def _dequantised(settings: Settings, files: ModelFiles, progress: Progress) -> Checkpoint:
    with _libraries_working():
        from qwen_openai.models.dequantise import dequantised
    return dequantised(files, settings.home, progress)


def notes(settings: Settings, files: ModelFiles | Checkpoint) -> list[str]:
    """What to tell before the model is loaded: how it is taken, where that is not plain, and which
    of the settings that somebody gave have no effect on it."""
    if not isinstance(files, Checkpoint):
        return _without_effect(settings, "llamacpp")
    engine = "qwen_chat" if settings.engine == "qwen_chat" else "transformers"
    said = _without_effect(settings, engine)
    if asks_for_code(files.folder):
        instead = "its weights are read as Qwen2's" if files.raw else "its weights are read"
        said.append(
            f"{files.name} brings Python code of its own (auto_map in its config.json). That is "
            f"never run here: {instead}, without it."
        )
    size = f"{files.weight_bytes / 1e9:.1f} GB"
    layout = "in the Qwen-1 layout, converted while they are loaded" if files.raw else "as they are"
    if files.from_gguf:
        layout = f"dequantised in {files.folder}"
    said.append(f"{files.name}: {size} of weights in {files.dtype}, {layout}.")
    return said


def _without_effect(settings: Settings, engine: str) -> list[str]:
    """A sentence on what somebody has changed in vain; a default that a file states is none."""
    fields = Settings.model_fields
    names = _UNUSED_BY[engine]
    given = [name for name in names if getattr(settings, name) != fields[name].default]
    if not given:
        return []
    have = "has" if len(given) == 1 else "have"
    listed = " and ".join([", ".join(given[:-1]), given[-1]] if given[1:] else given)
    return [f"{listed} {have} no effect on the engine {engine}, which runs this model."]


def _llamacpp(settings: Settings, files: ModelFiles) -> Engine:
    if settings.slots is not None and settings.slots > _MOST_SLOTS_OF_LLAMACPP:
        raise StartupError(
            f"The engine llamacpp has {_MOST_SLOTS_OF_LLAMACPP} slots at most; {settings.slots}"
            " were asked for.",
            fix=f"Give --slots {_MOST_SLOTS_OF_LLAMACPP} or less; more requests wait in the queue.",
        )
    from qwen_openai.engines.llamacpp import LlamaCppEngine, LlamaCppOptions, Vocabulary
    from qwen_openai.engines.llamacpp.sizing import choose
    from qwen_openai.engines.machine import measure

    sizing = choose(
        files.description,
        measure(),
        context=settings.context,
        slots=settings.slots,
        threads=settings.threads,
    )
    options = LlamaCppOptions(
        weights=files.weights,
        name=files.name,
        context=sizing.context,
        slots=sizing.slots,
        threads=sizing.threads,
        batch_tokens=settings.batch_tokens,
        prompt_cache=settings.prompt_cache,
        prompt_cache_mib=settings.prompt_cache_mib,
        default_max_tokens=settings.default_max_tokens,
        stall_timeout=settings.stall_timeout,
    )

    def load_vocabulary() -> Vocabulary:
        bpe = Bpe(files.tokenizer)
        renderer = Renderer(bpe, ChatTemplate(files.description.template))
        stops = (renderer.token_id(token) for token in family_of(files.name).stop_tokens)
        stop_ids = frozenset(stop for stop in stops if stop is not None)
        return Vocabulary(renderer, stop_ids, bpe.special)

    return LlamaCppEngine(options, load_vocabulary)


def _qwen_chat(settings: Settings, checkpoint: Checkpoint, report: Report | None) -> Engine:
    _require_libraries(checkpoint.name)
    _check_device_map(settings)
    if settings.slots is not None and settings.slots > 1:
        raise StartupError(
            f"The engine qwen_chat makes one answer at a time; {settings.slots} slots were asked "
            "for.",
            fix="Leave --slots out, or leave --engine out: the engine transformers makes many.",
        )
    from qwen_openai.engines.qwen_chat.engine import QwenChatEngine, QwenChatOptions

    options = QwenChatOptions(
        name=checkpoint.name,
        default_max_tokens=settings.default_max_tokens,
        stall_timeout=settings.stall_timeout,
    )

    def load() -> "QwenChat":
        # Not before: this imports torch, and is to do so in the engine's thread.
        with _libraries_working():
            from qwen_openai.engines.qwen_chat.startup import Wishes, load_checkpoint

        wishes = Wishes(
            device_map=settings.device_map,
            dtype=settings.dtype,
            context=settings.context,
            threads=settings.threads,
            home=settings.home,
            batch_tokens=_batch_tokens(settings),
        )
        return load_checkpoint(checkpoint, wishes, report)

    return QwenChatEngine(load, options)


def _transformers(
    settings: Settings, files: ModelFiles | Checkpoint, report: Report | None
) -> Engine:
    _require_libraries(files.name, *(["gguf"] if isinstance(files, ModelFiles) else []))
    _check_device_map(settings)
    from qwen_openai.engines.transformers.engine import TransformersEngine, TransformersOptions

    options = TransformersOptions(
        name=files.name,
        default_max_tokens=settings.default_max_tokens,
        answer_timeout=settings.answer_timeout,
        restarts=settings.on_engine_loss == "restart",
    )

    def load() -> "Served":
        # Not before: this imports torch, and is to do so in a thread.
        with _libraries_working():
            from qwen_openai.engines.transformers.startup import Wishes, load_checkpoint

        wishes = Wishes(
            device_map=settings.device_map,
            dtype=settings.dtype,
            context=settings.context,
            slots=settings.slots,
            threads=settings.threads,
            home=settings.home,
            batch_tokens=_batch_tokens(settings),
            stall_timeout=settings.stall_timeout,
        )
        checkpoint = (
            files if isinstance(files, Checkpoint) else _dequantised(settings, files, Untold())
        )
        return load_checkpoint(checkpoint, wishes, report)

    return TransformersEngine(load, options)


def _batch_tokens(settings: Settings) -> int | None:
    """Unasked, a card takes more at once than the default that suits processors."""
    return settings.batch_tokens if "batch_tokens" in settings.model_fields_set else None


def _check_device_map(settings: Settings) -> None:
    if _DEVICE_MAP.fullmatch(settings.device_map) is None:
        raise StartupError(
            f"The device map {settings.device_map!r} is none that is known.",
            fix="Give --device-map auto, balanced, sequential, cpu, cuda or cuda:N (the card N).",
        )


def _require_libraries(model: str, *more: str) -> None:
    """torch is no dependency of ours: which build is right depends on the machine."""
    missing = next((name for name in (*_NEEDED, *more) if find_spec(name) is None), None)
    if missing is not None:
        raise StartupError(
            f"{model} needs {missing}, which is not installed.",
            fix="`pip install torch==2.13.0`, then `pip install 'qwen-openai[transformers]'`; "
            f"`scripts/serve {model}` does both.",
        )


@contextmanager
def _libraries_working() -> Iterator[None]:
    """Around an import of what needs torch or the libraries beside it: they may be there and yet
    not be importable, built for another CUDA or Python, or half updated. Raises StartupError."""
    try:
        yield
    except Exception as error:  # the edge to libraries that raise anything when they are broken
        reason = (str(error).splitlines() or [""])[0][:300].rstrip(".")
        raise StartupError(
            "torch, or what belongs to it, is installed but does not work here: "
            f"{type(error).__name__}: {reason}.",
            fix="Install it again for this machine: `pip install --force-reinstall torch==2.13.0"
            " transformers accelerate safetensors gguf`; `python -c 'import torch'` shows whether"
            " it works.",
        ) from error
