"""How many answers of which length a device holds at once, decided before the weights are read.

Answers share one cache in pages, so a slot costs nothing until it is used: a cache for fewer tokens
than all slots could hold makes late answers wait, and starts them anew where they grow too long.
Reads no more than a config; knows no torch.
"""

from dataclasses import dataclass

from qwen_openai.engines.torch_model.devices import WIDTHS, Room
from qwen_openai.engines.transformers.needs import Needs
from qwen_openai.errors import StartupError
from qwen_openai.models.checkpoint import Checkpoint

# What a user's conversation is reckoned with where it is said how many fit.
USUAL = 4096
# What an answer and its prompt come to on the whole; there are slots for as many as that gives.
_TYPICAL = 1024
_MIN_CONTEXT = 256
_STEP = 256
# Answers at once where nobody says how many: beyond, a step takes too long for each of them.
_MOST_SLOTS, _MOST_SLOTS_ON_CPU = 128, 8
# Tokens of prompts that are read in one step, which all answers wait for.
_PIECE, _PIECE_ON_CPU = 512, 128
# Tokens that share a page. Prompts that begin alike share whole pages, so that small ones save
# more; the kernels of flash attention that read pages where they lie want this many.
_PAGE, _PAGE_FOR_FLASH = 32, 256


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the settings say; None leaves it to the machine. ``batch_tokens`` are those of prompts
    that one step reads; ``flash`` is whether attention will be flash attention."""

    dtype: str
    context: int | None = None
    slots: int | None = None
    batch_tokens: int | None = None
    flash: bool = False


@dataclass(frozen=True, slots=True)
class Sizing:
    """``context`` is tokens of one answer and its prompt; ``slots`` is answers at once;
    ``batch_tokens`` is what one step takes, of prompts and a token for each answer; the cache has
    ``pages`` of ``page_size`` tokens; ``weights`` and ``cache`` are bytes."""

    context: int
    slots: int
    batch_tokens: int
    pages: int
    page_size: int
    weights: int
    cache: int

    @property
    def cache_tokens(self) -> int:
        """Tokens of all answers and prompts together."""
        return self.pages * self.page_size

    def sentence(self) -> str:
        """What fits, as the start says it."""
        each = min(USUAL, self.context)
        users = max(self.cache_tokens // each, 1)
        return (
            f"weights {_gb(self.weights)}, cache {_gb(self.cache)}: {self.cache_tokens:,} tokens,"
            f" about {users} user{'s' if users > 1 else ''} at"
            f" {'4k' if each == USUAL else f'{each:,}'}"
        )


def page_size(flash: bool) -> int:
    """Return the tokens of a page, for flash attention or any other."""
    return _PAGE_FOR_FLASH if flash else _PAGE


def choose(checkpoint: Checkpoint, room: Room, wanted: Wanted) -> Sizing:
    """Fill in what ``wanted`` leaves open, and check the rest.

    A card is filled. Of the machine's memory the cache takes what the slots usually need and one
    whole context, and unasked at most half of what the weights leave.

    Raises StartupError when weights and one small answer do not fit, when what is asked for does
    not fit, and for a context that the model cannot have in this engine.
    """
    most = most_context(checkpoint)
    if wanted.context is not None and wanted.context > most:
        raise _too_long(checkpoint, wanted.context, most)
    plan = _Plan.of(checkpoint, room, wanted)
    least = min(_MIN_CONTEXT, most, wanted.context or _MIN_CONTEXT)
    if plan.fits(1) < least:
        raise StartupError(
            f"{checkpoint.name} needs about {_gb(plan.needed(1, least))} in {wanted.dtype};"
            f" {_gb(room.memory)} are free on {room.name}.",
            fix=_smaller(wanted.dtype, room),
        )
    if wanted.slots is not None and plan.fits(wanted.slots) < least:
        raise StartupError(
            f"{wanted.slots} answers of {checkpoint.name} at once need about"
            f" {_gb(plan.needed(wanted.slots, least))}; {_gb(room.memory)} are free on"
            f" {room.name}.",
            fix=f"Give --slots {plan.most_slots(wanted.slots, least)} or less.",
        )
    rows = wanted.slots or 1
    if wanted.context is not None and wanted.context > plan.fits(rows):
        raise StartupError(
            f"{wanted.context:,} tokens of {checkpoint.name} in {wanted.dtype} need about"
            f" {_gb(plan.needed(rows, wanted.context))}; {_gb(room.memory)} are free on"
            f" {room.name}.",
            fix=f"Give --context {_rounded(plan.fits(rows))} or less.",
        )
    return plan.filled(most, least)


def most_context(checkpoint: Checkpoint) -> int:
    """Return the tokens that an answer and its prompt may have here. A Qwen-1 goes beyond the
    length it was trained for by rules that hold for one answer, so not in this engine."""
    if checkpoint.qwen1 is None:
        return checkpoint.context_length
    return min(checkpoint.qwen1.seq_length, checkpoint.context_length)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one checkpoint may have of one device."""

    room: Room
    wanted: Wanted
    needs: Needs
    page: int
    piece: int

    @classmethod
    def of(cls, checkpoint: Checkpoint, room: Room, wanted: Wanted) -> "_Plan":
        return cls(
            room,
            wanted,
            Needs.of(checkpoint, WIDTHS[wanted.dtype], room.is_card, wanted.flash),
            page_size(wanted.flash),
            wanted.batch_tokens or (_PIECE if room.is_card else _PIECE_ON_CPU),
        )

    def needed(self, slots: int, tokens: int) -> int:
        """Bytes for ``slots`` answers at once over a cache of at least ``tokens``."""
        pages = -(-tokens // self.page)
        return self.needs.fixed(slots, self.piece + slots, self.page) + (
            pages * self.page * self.needs.token(self.piece + slots)
        )

    def fits(self, slots: int) -> int:
        """The tokens, of whole pages, that fit beside what ``slots`` answers need; negative where
        not even that does."""
        left = self.room.memory - self.needs.fixed(slots, self.piece + slots, self.page)
        return left // self.needs.token(self.piece + slots) // self.page * self.page

    def most_slots(self, below: int, tokens: int) -> int:
        """The most slots under ``below`` that leave room for ``tokens``, at least one."""
        return next((n for n in range(below - 1, 1, -1) if self.fits(n) >= tokens), 1)

    def filled(self, most: int, least: int) -> Sizing:
        on_card, asked = self.room.is_card, self.wanted.context
        slots = self.wanted.slots
        if slots is None:
            limit = _MOST_SLOTS if on_card else _MOST_SLOTS_ON_CPU
            slots = min(limit, max(self.fits(1) // min(_TYPICAL, most, asked or most), 1))
            slots = self.most_slots(slots + 1, max(asked or 0, least))
        fits = self.fits(slots)
        ours = fits if on_card else max(fits // 2, min(fits, least))
        context = asked or min(most, _rounded(ours))
        tokens = fits
        if on_card:
            # More than all answers can fill is of no use; what is beside it keeps prompts.
            tokens = min(tokens, 2 * slots * context)
        else:
            tokens = max(min(ours, slots * min(context, USUAL)), context)
        pages = -(-tokens // self.page)
        cache = (pages + 2) * self.page * self.needs.kept
        total = self.piece + slots
        return Sizing(context, slots, total, pages, self.page, self.needs.weights, cache)


def _rounded(tokens: int) -> int:
    return tokens // _STEP * _STEP or tokens


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


def _smaller(dtype: str, room: Room) -> str:
    halved = "Give --dtype bfloat16, take" if dtype == "float32" else "Take"
    if not room.is_card:
        return f"{halved} a smaller model, or free memory."
    return (
        f"{halved} a smaller model, or give --engine qwen_chat, which spreads it over all cards and"
        " the machine's memory and makes one answer at a time."
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
