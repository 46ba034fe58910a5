"""Weights laid out for a CPU, so that several rows cost little more than one.

For two rows and more, torch multiplies numbers of 32 bits with a library that on many processors is
four to five times slower than oneDNN on weights in its own layout (docs/benchmarks.md). The
products are as exact: both add up in 32 bits.
"""

import torch
from torch import nn
from transformers import PreTrainedModel

# The number of rows that the layout is made for; others may come.
_ROWS = 8


def pack(model: PreTrainedModel) -> int:
    """Lay the linear layers of ``model`` out for the CPU, in place; return how many.

    Each one's weights are moved, but where another layer uses them too, as an embedding does.
    Does nothing where this torch was built without oneDNN.
    """
    if not is_possible():
        return 0
    with torch.no_grad():
        return _pack(model)


def is_possible() -> bool:
    """Whether this torch has what is needed."""
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's own
    return bool(built) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _pack(parent: nn.Module) -> int:
    count = 0
    for name, child in list(parent.named_children()):
        if type(child) is nn.Linear:
            setattr(parent, name, PackedLinear(child))
            count += 1
        else:
            count += _pack(child)
    return count


class PackedLinear(nn.Module):
    """A linear layer in oneDNN's layout. Only for inference."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._weight, self._bias, "none", [], ""
        )
        return made
