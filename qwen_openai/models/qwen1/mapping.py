"""Which tensor of Qwen-1 becomes which of Qwen2. Pure: names and shapes, no tensors.

Nothing is computed: a tensor is renamed, or cut into equal parts along its first dimension, which
lie one behind the other in memory. Proved on logits; the tests repeat that.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qwen_openai.models.checkpoint import is_computed
from qwen_openai.models.qwen1.config import Shape


@dataclass(frozen=True, slots=True)
class Renamed:
    """A tensor of Qwen-1 with ``shape``, whose equal parts are called ``targets`` in Qwen2."""

    shape: tuple[int, ...]
    targets: tuple[str, ...]

    @property
    def part_shape(self) -> tuple[int, ...]:
        return (self.shape[0] // len(self.targets), *self.shape[1:])


def renaming(shape: Shape) -> dict[str, Renamed]:
    """Return all tensors of a Qwen-1 of these sizes, by name."""
    hidden = shape.hidden
    table = {
        "transformer.wte.weight": Renamed(
            (shape.vocabulary, hidden), ("model.embed_tokens.weight",)
        ),
        "transformer.ln_f.weight": Renamed((hidden,), ("model.norm.weight",)),
    }
    if not shape.tied:
        table["lm_head.weight"] = Renamed((shape.vocabulary, hidden), ("lm_head.weight",))
    joined = tuple(f"self_attn.{each}_proj" for each in "qkv")
    # Qwen-1 computes c_proj(w1(x) * silu(w2(x))): its second branch is the gate.
    layer: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
        "ln_1.weight": ((hidden,), ("input_layernorm.weight",)),
        "attn.c_attn.weight": (
            (3 * hidden, hidden),
            tuple(f"{each}.weight" for each in joined),
        ),
        "attn.c_attn.bias": ((3 * hidden,), tuple(f"{each}.bias" for each in joined)),
        "attn.c_proj.weight": ((hidden, hidden), ("self_attn.o_proj.weight",)),
        "ln_2.weight": ((hidden,), ("post_attention_layernorm.weight",)),
        "mlp.w1.weight": ((shape.inner, hidden), ("mlp.up_proj.weight",)),
        "mlp.w2.weight": ((shape.inner, hidden), ("mlp.gate_proj.weight",)),
        "mlp.c_proj.weight": ((hidden, shape.inner), ("mlp.down_proj.weight",)),
    }
    for number in range(shape.layers):
        for name, (size, targets) in layer.items():
            table[f"transformer.h.{number}.{name}"] = Renamed(
                size, tuple(f"model.layers.{number}.{target}" for target in targets)
            )
    return table


def fault(
    found: Iterable[tuple[str, tuple[int, ...]]], table: Mapping[str, Renamed], tied: bool
) -> str | None:
    """Say what is wrong with the tensors (name, shape) of a checkpoint, naming one; None: nothing.

    Tensors that are not learnt are passed over, as is the head of a model that is ``tied``.
    """
    seen = set()
    for name, shape in found:
        if is_passed_over(name, tied):
            continue
        if name not in table:
            return f"it has a tensor {name[:80]!r}, which no Qwen-1 of its config.json has"
        if name in seen:
            return f"it has the tensor {name!r} twice"
        if shape != table[name].shape:
            return f"its tensor {name!r} is {_size(shape)}, not {_size(table[name].shape)}"
        seen.add(name)
    missing = next((name for name in table if name not in seen), None)
    return None if missing is None else f"it has no tensor {missing!r}"


def is_passed_over(name: str, tied: bool) -> bool:
    """Whether a tensor takes no part in the conversion."""
    return is_computed(name) or (tied and name == "lm_head.weight")


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) if shape else "a single number"
