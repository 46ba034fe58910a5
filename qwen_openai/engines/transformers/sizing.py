"""How many answers of which length a device holds at once, decided before the weights are read.

Answers share one cache in pages, so a slot costs nothing until it is used: a cache for fewer tokens
than all slots could hold makes late answers wait, and starts them anew where they grow too long.
"""

from dataclasses import dataclass

from qwen_openai.engines.torch_model.devices import WIDTHS, Room
from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import CONFIG_FILE, Checkpoint
from qwen_openai.models.document import read_document

# What a user's conversation is reckoned with.
USUAL = 4096
_MIN_CONTEXT = 256
# Answers at once where nobody says how many: beyond, a step takes too long for each of them.
_MOST_SLOTS, _MOST_SLOTS_ON_CPU = 128, 8
# Beside weights and cache: activations and the libraries' workspaces.
_MARGIN = 600 * 2**20
_CPU = "the CPU"
# What transformers takes for a Qwen that states none.
_VOCABULARY = 151_936


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the settings say; None leaves it to the machine."""

    dtype: str
    context: int | None = None
    slots: int | None = None
    batch_tokens: int = 128


@dataclass(frozen=True, slots=True)
class Sizing:
    """``context`` is tokens of one answer and its prompt; ``cache_tokens`` are those of all;
    ``weights`` and ``cache`` are bytes."""

    context: int
    slots: int
    cache_tokens: int
    weights: int
    cache: int

    def sentence(self) -> str:
        """What fits, as the start says it."""
        users = max(self.cache_tokens // min(USUAL, self.context), 1)
        each = f"{min(USUAL, self.context):,}"
        return (
            f"weights {self.weights / 1e9:.1f} GB, cache {self.cache / 1e9:.1f} GB:"
            f" {self.cache_tokens:,} tokens, about {users} users at {each}"
        )


def choose(checkpoint: Checkpoint, room: Room, wanted: Wanted) -> Sizing:
    """Fill in what ``wanted`` leaves open, and check the rest.

    Raises StartupError when weights and one small answer do not fit, when what is asked for does
    not fit, and for a context that the model cannot have in this engine.
    """
    width = WIDTHS[wanted.dtype]
    on_cpu = room.name == _CPU
    most = _most_context(checkpoint)
    if wanted.context is not None and wanted.context > most:
        raise _too_long(checkpoint, wanted.context, most)
    needs = _Needs.of(checkpoint, width, wanted.batch_tokens, on_cpu)
    rows = wanted.slots or (_MOST_SLOTS_ON_CPU if on_cpu else _MOST_SLOTS)
    left = room.memory - needs.weights - _MARGIN - rows * needs.row
    fits = left // needs.token
    if fits < min(_MIN_CONTEXT, most):
        least = room.memory - left + min(_MIN_CONTEXT, most) * needs.token
        raise StartupError(
            f"{checkpoint.name} needs about {_gb(least)} in {wanted.dtype}; {_gb(room.memory)} are"
            f" free on {room.name}.",
            fix=_smaller(wanted.dtype, on_cpu),
        )
    if wanted.context is not None and wanted.context > fits:
        least = room.memory - left + wanted.context * needs.token
        raise StartupError(
            f"{wanted.context:,} tokens of {checkpoint.name} in {wanted.dtype} need about"
            f" {_gb(least)}; {_gb(room.memory)} are free on {room.name}.",
            fix=f"Give --context {fits} or less.",
        )
    context = wanted.context or min(most, fits)
    usual = min(context, USUAL)
    slots = wanted.slots or max(min(rows, fits // usual), 1)
    # The rest of a machine's memory is not ours to take; the rest of a card is of no other use.
    share = usual if on_cpu else context
    cache_tokens = min(fits, max(slots * share, context))
    return Sizing(context, slots, cache_tokens, needs.weights, cache_tokens * needs.kept)


@dataclass(frozen=True, slots=True)
class _Needs:
    """Bytes: of all weights; ``kept`` for a token in the cache, ``token`` for that and what one
    step needs of it beside; ``row`` for the logits of one answer."""

    weights: int
    kept: int
    token: int
    row: int

    @classmethod
    def of(cls, checkpoint: Checkpoint, width: int, batch_tokens: int, on_cpu: bool) -> "_Needs":
        config = read_document(checkpoint.folder / CONFIG_FILE)
        heads, hidden = config.whole("num_attention_heads"), config.whole("hidden_size")
        head = config.whole("head_dim", max(hidden // heads, 1))
        vocabulary = config.whole("vocab_size", _VOCABULARY)
        weights = checkpoint.weight_bytes * width // WIDTHS[checkpoint.dtype]
        if on_cpu and config.values.get("tie_word_embeddings") is True:
            # The output layer is laid out anew, beside the embedding.
            weights += vocabulary * hidden * width
        kept = max(checkpoint.kv_values_per_token * width, 1)
        # Keys and values of one layer are copied for each head, and every token of the batch says
        # which tokens of the cache it looks at.
        copied = 3 * heads * head * width + batch_tokens * width
        return cls(weights, kept, kept + copied, 3 * vocabulary * 4)


def _most_context(checkpoint: Checkpoint) -> int:
    """A Qwen-1 goes beyond the length it was trained for by rules that hold for one answer."""
    if checkpoint.qwen1 is None:
        return checkpoint.context_length
    return min(checkpoint.qwen1.seq_length, checkpoint.context_length)


def _too_long(checkpoint: Checkpoint, context: int, most: int) -> StartupError:
    if checkpoint.context_length >= context:
        return StartupError(
            f"{checkpoint.name} was trained for {most:,} tokens, and {context:,} were asked for;"
            " beyond, a Qwen-1 changes its attention for each answer, which answers in one batch"
            " cannot.",
            fix=f"Give --context {most} or less, or --engine qwen_chat, which makes one answer at"
            " a time.",
        )
    return StartupError(
        f"{checkpoint.name} can hold {most:,} tokens; {context:,} were asked for.",
        fix=f"Give --context {most} or less.",
    )


def _smaller(dtype: str, on_cpu: bool) -> str:
    halved = "Give --dtype bfloat16, take" if dtype == "float32" else "Take"
    instead = "free memory" if on_cpu else "spread it with --engine qwen_chat, which is slower"
    return f"{halved} a smaller model, or {instead}."


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
