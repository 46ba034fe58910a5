"""llama.cpp's names of a Qwen's tensors to transformers', with the shape of each. Pure.

A table, in which every tensor must be found and no other; knows no numbers. llama.cpp reorders no
rows of a Qwen, as it does of a Llama, so names are all that differs, and experts, which it stacks.

Sources: the tensor names of the `gguf` package; the state dicts of transformers' Qwen2, Qwen3,
Qwen2Moe and Qwen3Moe.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen_openai.models.dequantise.facts import EMBEDDING, HEAD, Experts, Facts
from qwen_openai.models.gguf import GGUF, TensorInfo, unusable

EMBEDDING_TARGET = "model.embed_tokens.weight"


@dataclass(frozen=True, slots=True)
class Place:
    """What becomes of a tensor of ``shape``: ``parts`` equal ones that lie one behind the other,
    each of ``part_shape`` and called ``target``, where {} stands for its number."""

    shape: tuple[int, ...]
    target: str
    part_shape: tuple[int, ...]
    parts: int = 1


def places_of(gguf: GGUF, facts: Facts) -> dict[str, Place]:
    """Return what becomes of each tensor in the file, by its name there.

    Raises StartupError unless these are the tensors of a model of these sizes, each of its shape.
    """
    # Before a table of that size is made.
    if facts.layers > len(gguf.tensors):
        raise unusable(gguf.path, f"it states {facts.layers} layers and has fewer tensors")
    places = table(facts)
    _check(gguf.path, gguf.tensors, places)
    return {each.name: places[each.name] for each in gguf.tensors}


def table(facts: Facts) -> dict[str, Place]:
    """Return all tensors that a model of these sizes has, by their names in GGUF, the head among
    them, which is left out where the embedding serves for it."""
    places = {
        EMBEDDING: _whole(EMBEDDING_TARGET, facts.vocabulary, facts.hidden),
        HEAD: _whole("lm_head.weight", facts.vocabulary, facts.hidden),
        "output_norm.weight": _whole("model.norm.weight", facts.hidden),
    }
    for layer in range(facts.layers):
        front = f"model.layers.{layer}."
        parts = (_attention(facts, front), _mlp(facts, front), _norms(facts, front))
        for part in parts:
            places |= {f"blk.{layer}.{name}": place for name, place in part}
    return places


def _whole(target: str, *shape: int) -> Place:
    return Place(shape, target, shape)


def _norms(facts: Facts, front: str) -> Iterator[tuple[str, Place]]:
    yield "attn_norm.weight", _whole(f"{front}input_layernorm.weight", facts.hidden)
    yield "ffn_norm.weight", _whole(f"{front}post_attention_layernorm.weight", facts.hidden)


def _attention(facts: Facts, front: str) -> Iterator[tuple[str, Place]]:
    front += "self_attn."
    queries, keys = facts.heads * facts.width, facts.kv_heads * facts.width
    for letter, rows in (("q", queries), ("k", keys), ("v", keys)):
        yield f"attn_{letter}.weight", _whole(f"{front}{letter}_proj.weight", rows, facts.hidden)
        if facts.generation == 2:
            yield f"attn_{letter}.bias", _whole(f"{front}{letter}_proj.bias", rows)
    yield "attn_output.weight", _whole(f"{front}o_proj.weight", facts.hidden, queries)
    if facts.generation == 3:
        for letter in "qk":
            yield f"attn_{letter}_norm.weight", _whole(f"{front}{letter}_norm.weight", facts.width)


def _mlp(facts: Facts, front: str) -> Iterator[tuple[str, Place]]:
    front += "mlp."
    experts, hidden = facts.experts, facts.hidden
    if experts is None:
        yield from _branches("ffn_{}.weight", f"{front}{{}}_proj.weight", facts.inner, hidden)
        return
    yield "ffn_gate_inp.weight", _whole(f"{front}gate.weight", experts.count, hidden)
    yield from _stacked(experts, front, hidden)
    if experts.shared:
        shared = f"{front}shared_expert"
        # A matrix of one row, which llama.cpp keeps as a vector.
        yield (
            "ffn_gate_inp_shexp.weight",
            Place((hidden,), f"{shared}_gate.weight", (1, hidden)),
        )
        yield from _branches(
            "ffn_{}_shexp.weight", f"{shared}.{{}}_proj.weight", experts.shared, hidden
        )


def _stacked(experts: Experts, front: str, hidden: int) -> Iterator[tuple[str, Place]]:
    for name, place in _branches("ffn_{}_exps.weight", "{}_proj.weight", experts.inner, hidden):
        target = f"{front}experts.{{}}.{place.target}"
        yield name, Place((experts.count, *place.shape), target, place.shape, experts.count)


def _branches(there: str, here: str, inner: int, hidden: int) -> Iterator[tuple[str, Place]]:
    for branch, shape in (
        ("gate", (inner, hidden)),
        ("up", (inner, hidden)),
        ("down", (hidden, inner)),
    ):
        yield there.format(branch), _whole(here.format(branch), *shape)


def _check(path: Path, tensors: Sequence[TensorInfo], places: dict[str, Place]) -> None:
    found = {each.name: each.shape for each in tensors}
    missing = sorted(places.keys() - found.keys() - {HEAD})
    if missing:
        raise unusable(path, f"it lacks {len(missing)} tensors, such as {missing[0]}")
    unknown = sorted(found.keys() - places.keys())
    if unknown:
        raise unusable(
            path, f"it has {len(unknown)} tensors that its kind has not, such as {unknown[0][:80]}"
        )
    for name, shape in found.items():
        if shape != places[name].shape:
            raise unusable(
                path,
                f"its tensor {name} is of the shape {list(shape)}, not {list(places[name].shape)}",
            )
