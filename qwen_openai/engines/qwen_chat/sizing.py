"""How many tokens a checkpoint may hold on the device that is to run it, decided before it loads.

It reads no more than a config. The engine runs one conversation at a time, so that the cache of one
context is all that the weights leave to be found.
"""

from dataclasses import dataclass

from qwen_openai.engines.torch_model.devices import WIDTHS, Room
from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import CONFIG_FILE, Checkpoint
from qwen_openai.models.document import read_document

_MIN_CONTEXT = 256
_STEP = 256

# Beside weights and cache: activations of one piece of a prompt, the logits of its last token in
# float32, and the workspaces of the libraries below.
_MARGIN = 600 * 2**20


@dataclass(frozen=True, slots=True)
class Sizing:
    """``context`` is tokens of prompt and answer; ``weights`` and ``token`` are bytes: of all
    weights, and of the cache for one token."""

    context: int
    weights: int
    token: int


def choose(checkpoint: Checkpoint, room: Room, *, dtype: str, context: int | None = None) -> Sizing:
    """Fill in ``context`` where the user left it open (None), else check it.

    Unasked, it is what the model was trained for (a Qwen-1's ``seq_length``, past which it only
    goes when asked), or as much of that as the memory holds.

    Raises StartupError when weights and 256 tokens do not fit, when what is asked for does not fit,
    and when it is more than the model can do.
    """
    width = WIDTHS[dtype]
    weights = checkpoint.weight_bytes * width // WIDTHS[checkpoint.dtype]
    token = max(checkpoint.kv_values_per_token * width, 1)
    held = token + _repeated(checkpoint) * width
    if context is not None and context > checkpoint.context_length:
        raise StartupError(
            f"{checkpoint.name} can hold {checkpoint.context_length:,} tokens; {context:,} were "
            "asked for.",
            fix=f"Give --context {checkpoint.context_length} or less.",
        )
    fits = (room.memory - weights - _MARGIN) // held
    facts = checkpoint.qwen1
    trained = checkpoint.context_length if facts is None else facts.seq_length
    most = min(trained, checkpoint.context_length)
    if fits < min(_MIN_CONTEXT, most):
        needed = weights + _MARGIN + min(_MIN_CONTEXT, most) * held
        raise StartupError(
            f"{checkpoint.name} needs about {_gb(needed)} in {dtype}; {_gb(room.memory)} are free "
            f"on {room.name}.",
            fix=_smaller(dtype, room),
        )
    if context is None:
        rounded = fits // _STEP * _STEP or fits
        return Sizing(min(most, rounded), weights, token)
    if context > fits:
        needed = weights + _MARGIN + context * held
        raise StartupError(
            f"{context:,} tokens of {checkpoint.name} in {dtype} need about {_gb(needed)}; "
            f"{_gb(room.memory)} are free on {room.name}.",
            fix=f"Give --context {fits // _STEP * _STEP or fits} or less.",
        )
    return Sizing(context, weights, token)


def _repeated(checkpoint: Checkpoint) -> int:
    """Return how many numbers a layer makes of each token in the cache while it reads a piece of a
    prompt behind others: where several heads share keys and values, all are copied for each head.

    One layer at a time does so. The library's attention needs it as soon as there is a mask.
    """
    if checkpoint.qwen1 is not None:
        return 0
    config = read_document(checkpoint.folder / CONFIG_FILE)
    heads = config.whole("num_attention_heads")
    if config.whole("num_key_value_heads", heads) == heads:
        return 0
    width = config.whole("head_dim", max(config.whole("hidden_size") // heads, 1))
    return 2 * heads * width


def _smaller(dtype: str, room: Room) -> str:
    halved = "Give --dtype bfloat16, take" if dtype == "float32" else "Take"
    instead = "free memory" if room.name == "the CPU" else "give --device-map cpu, which is slow"
    return f"{halved} a smaller model, or {instead}."


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
