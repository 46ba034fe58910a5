"""Weights laid out for a CPU, so that several rows cost little more than one.

For two rows and more, torch multiplies numbers of 32 bits with a library that on many processors is
four to five times slower than oneDNN on weights in its own layout, and those of bfloat16 too gain
by it (docs/benchmarks.md). The products are as exact: both add up in 32 bits.
"""

import contextlib
import ctypes
from typing import Protocol

import torch
from torch import nn
from transformers import PreTrainedModel

# The number of rows that the layout is made for; others may come. Of 1, 8, 16 and 128, all but 1
# are equally fast for any number of rows.
_ROWS = 8
# Where the arithmetic is tried: odd numbers of everything.
_TRIAL_ROWS, _TRIAL_INPUTS, _TRIAL_OUTPUTS = 3, 37, 19


class Kernels(Protocol):
    """What of torch's oneDNN is called; it is private to torch, so any of it may be missing."""

    def _reorder_linear_weight(self, weight: torch.Tensor, rows: int) -> torch.Tensor: ...

    def _linear_pointwise(
        self,
        rows: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        then: str,
        scalars: list[float],
        algorithm: str,
    ) -> torch.Tensor: ...


def pack(model: PreTrainedModel, kernels: Kernels | None = None) -> int:
    """Lay the linear layers of ``model`` out for the CPU, in place; return how many.

    Each one's weights are moved, but where another layer uses them too, as an embedding does. What
    is hooked or is no plain linear layer stays as it is, and so does all of a model whose kind of
    number this processor or this torch cannot lay out. ``kernels`` are torch's own unless given.
    """
    found: Kernels = torch.ops.mkldnn if kernels is None else kernels
    if not is_possible(model.dtype, found):
        return 0
    with torch.no_grad():
        count = _pack(model, found)
    _give_back()
    return count


def is_possible(dtype: torch.dtype, kernels: Kernels) -> bool:
    """Whether the kernels are there, take this type, and compute what torch computes."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch's own
        return False
    linear = nn.Linear(_TRIAL_INPUTS, _TRIAL_OUTPUTS, dtype=dtype)
    numbers = torch.linspace(-1, 1, _TRIAL_INPUTS * _TRIAL_OUTPUTS).view(_TRIAL_OUTPUTS, -1)
    linear.weight.data.copy_(numbers)
    rows = numbers[:_TRIAL_ROWS].to(dtype)
    try:
        made = PackedLinear(linear, kernels)(rows)
    except (AttributeError, RuntimeError, TypeError):
        # Missing, not for this processor (bfloat16 and float16 need what not all have), or called
        # otherwise in this torch.
        return False
    return bool(torch.allclose(made.float(), linear(rows).float(), rtol=1e-2, atol=1e-3))


def _pack(parent: nn.Module, kernels: Kernels) -> int:
    count = 0
    # No list of the children themselves: each is to be freed before the next is laid out.
    for name in [name for name, _ in parent.named_children()]:
        child = getattr(parent, name)
        if _is_plain(child):
            setattr(parent, name, PackedLinear(child, kernels))
            count += 1
        else:
            count += _pack(child, kernels)
    return count


def _give_back() -> None:
    """Return what was freed to the system: glibc keeps hundreds of megabytes of it otherwise."""
    with contextlib.suppress(OSError, TypeError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _is_plain(module: nn.Module) -> bool:
    """Whether nothing but the product of a linear layer would be lost with it."""
    hooked = hasattr(module, "_hf_hook") or module._forward_hooks or module._forward_pre_hooks
    return type(module) is nn.Linear and not hooked


class PackedLinear(nn.Module):
    """A linear layer in oneDNN's layout. Only for inference."""

    def __init__(self, linear: nn.Linear, kernels: Kernels) -> None:
        """Raises RuntimeError where the processor has no product for this type of number."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._kernels = kernels
        self._weight = kernels._reorder_linear_weight(linear.weight.detach(), _ROWS)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """``rows`` are (..., inputs); the result is (..., outputs), as `nn.Linear` gives it."""
        return self._kernels._linear_pointwise(rows, self._weight, self._bias, "none", [], "")
