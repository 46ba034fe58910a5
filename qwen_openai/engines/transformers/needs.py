"""What a model needs of memory in transformers' continuous batching, from its config alone.

The terms are those of transformers' PagedAttentionMemoryHandler, which has the last word when the
cache is built, and what it leaves out: the sampler's rows, the layers' own, the libraries'.
"""

from dataclasses import dataclass

from qwen_openai.engines.torch_model.devices import WIDTHS
from qwen_openai.models.checkpoint import CONFIG_FILE, Checkpoint
from qwen_openai.models.document import Document, read_document

# What the libraries take for themselves, and what memory is lost between blocks.
_MARGIN = 600 * 2**20
# What transformers takes for a Qwen that states none.
_VOCABULARY = 151_936
# Bytes for each token of the vocabulary that the sampling of one answer may have at a time: the
# logits as computed and in 32 bits, their logarithms, and where the whole row is sorted
# probabilities, ids of 64 bits, their sums, and the same again for the sort itself.
_ROW = 48
# Index tensors: a token of a step has eight numbers of 32 bits and two of 64, one of the cache
# one of 64.
_STEP_INDEX, _CACHE_INDEX = 48, 8
# The cache begins with pages that are never given out.
_SPARE_PAGES = 2


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes: of all ``weights``; ``largest`` of their matrices; ``kept`` for a token in the cache
    and ``read`` for what the layer at work copies of it; ``row`` for the choice of one answer's
    token; ``active`` for a token on its way through a layer; ``mask`` for a pair of both."""

    weights: int
    largest: int
    kept: int
    read: int
    row: int
    active: int
    mask: int

    @classmethod
    def of(cls, checkpoint: Checkpoint, width: int, on_card: bool, flash: bool) -> "Needs":
        """``width`` is the bytes of a number; ``flash`` is whether attention is flash attention."""
        config = read_document(checkpoint.folder / CONFIG_FILE)
        hidden, vocabulary = config.whole("hidden_size"), config.whole("vocab_size", _VOCABULARY)
        heads, sharing, head = _heads(config, checkpoint.raw)
        inner, output = _inner(config), vocabulary * hidden * width
        weights = checkpoint.weight_bytes * width // WIDTHS[checkpoint.dtype]
        # While it is laid out anew for the CPU, a matrix is there twice.
        largest = 0 if on_card else output
        if largest and config.values.get("tie_word_embeddings") is True:
            # The output layer stays so, beside the embedding.
            weights, largest = weights + output, inner * hidden * width
        # Without flash attention, keys and values are copied for each head that shares them, and
        # every token of a step says which tokens of the cache it looks at; a card's kernel may
        # want that copied once more. On a CPU our attention makes no such copies, but transformers
        # reckons with them there too, and refuses what does not fit by its own sum.
        copied = 2 * sharing if flash else 2 * heads + sharing
        masks = 0 if flash else 2 if on_card else 1
        wide = 4 * hidden + (heads + copied + 2 * sharing) * head + 3 * inner
        return cls(
            weights=weights,
            largest=largest,
            kept=max(checkpoint.kv_values_per_token * width, 1),
            read=copied * head * width + _CACHE_INDEX,
            row=hidden * width + vocabulary * _ROW,
            active=wide * width + _STEP_INDEX,
            mask=masks * width,
        )

    def token(self, batch_tokens: int) -> int:
        """All that a token in the cache takes where a step has ``batch_tokens``."""
        return self.kept + self.read + batch_tokens * self.mask

    def fixed(self, slots: int, batch_tokens: int, page: int) -> int:
        """What is needed whatever the cache holds."""
        working = slots * self.row + batch_tokens * (self.active + batch_tokens * self.mask)
        spare = _SPARE_PAGES * page * self.kept
        return self.weights + _MARGIN + max(working + spare, self.largest)


def _heads(config: Document, raw: bool) -> tuple[int, int, int]:
    """Heads, those of keys and values, and the numbers of one."""
    heads = config.whole("num_attention_heads")
    head = max(config.whole("hidden_size") // heads, 1)
    if raw:  # what a Qwen-1 states of these is not what it has; see `qwen1.config`
        return heads, heads, head
    return heads, config.whole("num_key_value_heads", heads), config.whole("head_dim", head)


def _inner(config: Document) -> int:
    """The numbers between a layer's two halves for one token, over all experts that it takes."""
    inner = config.whole("intermediate_size", config.whole("hidden_size"))
    experts = config.whole("moe_intermediate_size", 0) * config.whole("num_experts_per_tok", 1)
    return max(inner, experts + config.whole("shared_expert_intermediate_size", 0))
