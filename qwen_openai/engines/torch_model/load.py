"""A directory of weights to a model that can run: transformers, a renderer, and all weights proven.

A Qwen-1 as published is renamed on the way, its weights mapped from disk and never held twice; all
others load as transformers loads them. Code that comes with a checkpoint is never run.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel, Qwen2ForCausalLM
from transformers.models.qwen2 import Qwen2Config

from qwen_openai.engines.torch_model.long_context import LongContext
from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import (
    CONFIG_FILE,
    Checkpoint,
    chat_template,
    read_checkpoint,
    tokenizer_file,
)
from qwen_openai.models.document import read_document
from qwen_openai.models.layout import stated_home
from qwen_openai.models.qwen1 import generation_config, qwen2_config, state_dict
from qwen_openai.models.store import locate
from qwen_openai.prompting.bpe import Bpe
from qwen_openai.prompting.qwen1 import Qwen1Renderer
from qwen_openai.prompting.render import Renderer
from qwen_openai.prompting.template import ChatTemplate

DeviceMap = str | int | torch.device | Mapping[str, str | int | torch.device] | None
Dtype = str | torch.dtype

DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}
_SHORT = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32"}
# Words by which accelerate finds the devices itself.
_PLANS = ("auto", "balanced", "balanced_low_0", "sequential")
_OTHER_MODEL = "Use another directory, or get this one again."


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model and what makes its prompts and texts. ``long_context`` is None where the context ends
    with what the model was trained for, or is to end there."""

    checkpoint: Checkpoint
    model: PreTrainedModel
    bpe: Bpe
    renderer: Renderer | Qwen1Renderer
    long_context: LongContext | None


def load(
    path: str | os.PathLike[str],
    device_map: DeviceMap,
    dtype: Dtype,
    home: Path | None,
    *,
    beyond: bool = True,
) -> Loaded:
    """Load the directory ``path``, or the model of that name that was pulled.

    ``device_map`` is accelerate's: "auto" is all cards, or the CPU without any. ``dtype`` is
    "auto", a name or a torch.dtype; see `resolve_dtype`. ``home`` is the cache that a Qwen-1's
    converted tokenizer is kept in. Without ``beyond`` a Qwen-1 gets no hooks for contexts longer
    than what it was trained for. Raises StartupError when the directory cannot be served or the
    model does not fit, or when a device is none that torch can use here, TypeError or ValueError
    for a dtype that is none.
    """
    checkpoint = _checkpoint(path, home)
    check_devices(device_map)
    chosen = resolve_dtype(dtype, checkpoint, device_map)
    bpe = Bpe(tokenizer_file(checkpoint, home))
    renderer: Renderer | Qwen1Renderer
    if checkpoint.qwen1 is None:
        renderer = Renderer(bpe, ChatTemplate(chat_template(checkpoint)))
    else:
        renderer = Qwen1Renderer(bpe)
    model = _load_model(checkpoint, device_map, chosen)
    model.generation_config = _generation_config(checkpoint, model)
    long_context = _long_context(model, checkpoint) if beyond else None
    return Loaded(checkpoint, model, bpe, renderer, long_context)


def check_devices(device_map: DeviceMap) -> None:
    """Raise StartupError unless each device of ``device_map`` is here; TypeError for what can be
    none."""
    if device_map is None or device_map in _PLANS:
        return
    places = device_map.values() if isinstance(device_map, Mapping) else (device_map,)
    for place in places:
        if place != "disk" and not _is_here(place):
            raise StartupError(
                f"There is no device {str(place)!r} here that torch could use.",
                fix='Take the device map "auto" or "cpu", or install a torch that was built for'
                " this machine's card.",
            )


def _is_here(place: str | int | torch.device) -> bool:
    try:
        device = torch.device(place)
    except RuntimeError:
        return False
    if device.type == "cpu":
        return True
    present = torch.accelerator.current_accelerator(check_available=True)
    if present is None or present.type != device.type:
        return False
    return (device.index or 0) < torch.accelerator.device_count()


def _checkpoint(path: str | os.PathLike[str], home: Path | None) -> Checkpoint:
    if Path(path).is_dir():
        return read_checkpoint(Path(path))
    name = os.fspath(path)
    found = locate(name, home=home or stated_home())
    if isinstance(found, Checkpoint):
        return found
    if found is not None:
        raise StartupError(
            f"{name} is a GGUF file, and QwenChat runs directories of safetensors.",
            fix=f"Serve it: `qwen-openai serve {name}`, or give a directory.",
        )
    raise StartupError(
        f"There is no directory {name}, and no model of that name on this machine.",
        fix="Check the path; a model of ModelScope is fetched with `qwen-openai pull ORG/NAME`.",
    )


def resolve_dtype(dtype: Dtype, checkpoint: Checkpoint, device_map: DeviceMap) -> torch.dtype:
    """Return the type of number to compute with.

    "auto" is float32 on a CPU, elsewhere what is on disk, and float16 for bfloat16 on a GPU that
    has none. What was dequantised lies on disk in float16 and is computed in bfloat16, as Qwen was
    trained: its activations go beyond what float16 reaches.
    """
    if isinstance(dtype, torch.dtype):
        if dtype not in DTYPES.values():
            raise ValueError(f"dtype {dtype} is not one of {', '.join(DTYPES)}")
        return dtype
    if not isinstance(dtype, str):
        raise TypeError(f"dtype must be a name or a torch.dtype, not {type(dtype).__name__}")
    name = dtype.removeprefix("torch.")
    name = _SHORT.get(name, name)
    if name != "auto":
        if name not in DTYPES:
            raise ValueError(f"dtype {dtype!r} is not one of auto, {', '.join(DTYPES)}")
        return DTYPES[name]
    if not _accelerated(device_map):
        return torch.float32
    stored = DTYPES.get(checkpoint.dtype, torch.float16)
    if checkpoint.from_gguf and stored is torch.float16:
        stored = torch.bfloat16
    lacks_it = torch.cuda.is_available() and not torch.cuda.is_bf16_supported(
        including_emulation=False
    )
    return torch.float16 if stored is torch.bfloat16 and lacks_it else stored


def _accelerated(device_map: DeviceMap) -> bool:
    """Whether any of the model will be on something else than the CPU."""
    if device_map is None:
        return False
    if isinstance(device_map, Mapping):
        return any(str(place) not in ("cpu", "disk") for place in device_map.values())
    if device_map in _PLANS:
        return bool(torch.accelerator.is_available())
    return not str(device_map).startswith("cpu")


def _load_model(
    checkpoint: Checkpoint, device_map: DeviceMap, dtype: torch.dtype
) -> PreTrainedModel:
    try:
        loaded = (
            _load_raw(checkpoint.folder, device_map, dtype)
            if checkpoint.raw
            else _load_native(checkpoint.folder, device_map, dtype)
        )
    except (OSError, ValueError, RuntimeError, AssertionError) as exc:
        # torch.OutOfMemoryError is a RuntimeError; a torch without CUDA asserts that it has it.
        raise StartupError(
            f"The model in {checkpoint.folder} cannot be loaded: {_first_line(exc)}.",
            fix="Where memory ran out, use a smaller model or more cards; else get it again.",
        ) from exc
    match loaded:
        case (PreTrainedModel() as model, dict() as report):
            _prove(checkpoint.folder, model, report)
            return model
    raise TypeError("transformers did not return the model and how its loading went")


def _load_native(folder: Path, device_map: DeviceMap, dtype: torch.dtype) -> object:
    return AutoModelForCausalLM.from_pretrained(
        folder,
        device_map=device_map,
        dtype=dtype,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )


def _load_raw(folder: Path, device_map: DeviceMap, dtype: torch.dtype) -> object:
    stated = folder / CONFIG_FILE
    config = qwen2_config(read_document(stated).values, stated)
    return Qwen2ForCausalLM.from_pretrained(
        None,
        config=Qwen2Config.from_dict(config),
        state_dict=state_dict(folder),
        device_map=device_map,
        dtype=dtype,
        output_loading_info=True,
    )


def _generation_config(checkpoint: Checkpoint, model: PreTrainedModel) -> GenerationConfig:
    """Return the defaults that the directory states; a Qwen-1's in words that were mended."""
    if not checkpoint.raw:
        return model.generation_config or GenerationConfig.from_dict({})
    file = checkpoint.folder / "generation_config.json"
    stated = read_document(file).values if file.is_file() else {}
    return GenerationConfig.from_dict(generation_config(stated))


def _prove(folder: Path, model: PreTrainedModel, report: dict[str, object]) -> None:
    """Raise StartupError unless every weight came from disk and is where it can be used."""
    for what in ("missing_keys", "mismatched_keys", "error_msgs"):
        found = report.get(what)
        if isinstance(found, set | list) and found:
            raise StartupError(
                f"{folder} is not the whole model: {len(found)} of its weights are missing or of"
                f" another shape, such as {sorted(map(str, found))[0]}.",
                fix=_OTHER_MODEL,
            )
    places = getattr(model, "hf_device_map", None) or {}
    if "disk" in places.values():
        raise StartupError(
            f"The model in {folder} does not fit into the memory of the cards and the machine.",
            fix="Use a smaller model or one with smaller numbers, or more memory.",
        )
    if places:
        return  # what is offloaded to the CPU waits on the meta device
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise StartupError(f"{folder} has no values for {name}.", fix=_OTHER_MODEL)


def _long_context(model: PreTrainedModel, checkpoint: Checkpoint) -> LongContext | None:
    facts = checkpoint.qwen1
    if facts is None or checkpoint.context_length <= facts.seq_length:
        return None
    return LongContext(model, facts)


def _first_line(exc: Exception) -> str:
    line = next(iter(str(exc).splitlines()), "") or type(exc).__name__
    return line[:300].rstrip(".")
