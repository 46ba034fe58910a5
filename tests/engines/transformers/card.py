"""A card that records graphs, in the place of one: what it knows of a step is its tensors.

While it records it writes down each operation, and undoes what they did when it is done, as nothing
is computed while a true card records. A replay does the same operations on the same tensors, and
runs nothing of Python's; a number that Python wants to know is refused as there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.generation.continuous_batching import ContinuousBatchingManager

Forward = Callable[..., None]
Wrong = Literal["", "idle", "blind"]


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it bare
    """The operations of one graph."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self._operations: list[tuple[OpOverload, tuple[Any, ...], dict[str, Any], object]] = []
        self._undo: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        named = kwargs or {}
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                written = args[place] if place < len(args) else named[argument.name]
                self._undo.append((written, written.clone()))
        made = func(*args, **named)
        self._operations.append((func, args, named, made))
        return made

    def undo(self) -> None:
        """Put back what the recorded operations have overwritten."""
        for tensor, before in reversed(self._undo):
            tensor.copy_(before)
        self._undo.clear()

    def replay(self) -> None:
        for func, args, named, made in self._operations:
            again = func(*args, **named)
            for old, new in zip(_tensors(made), _tensors(again), strict=True):
                # A view, or what was written in its place, is the old tensor's memory.
                if old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.copy_(new)

    def reset(self) -> None:
        """Forget, as a graph that is dropped."""
        self._operations.clear()


class Card:
    """Records and replays for one manager; ``recorded`` and ``replayed`` count graphs and steps."""

    def __init__(self, *, fails_at: int | None = None, wrong: Wrong = "") -> None:
        """``fails_at`` is the graph that cannot be recorded; ``wrong`` is what replays are where
        they are: "idle" ones do nothing, "blind" ones see no tokens."""
        self.recorded = self.replayed = 0
        self._fails_at, self._wrong = fails_at, wrong

    def install(self, manager: ContinuousBatchingManager) -> None:
        """Have ``manager``, which has its batch processor, record all its steps."""
        processor: Any = manager.batch_processor
        runner, files = processor.model_runner, processor.inputs_and_outputs

        def replay(tape: Tape) -> None:
            self.replayed += 1
            if self._wrong == "blind":
                files.input_ids.zero_()
            if self._wrong != "idle":
                tape.replay()

        def capture(forward: Forward, stream: object, *args: object) -> None:
            forward(*args)
            self.recorded += 1
            if self.recorded == self._fails_at:
                raise torch.OutOfMemoryError("CUDA out of memory")
            tape = Tape()
            with tape:
                forward(*args)
            tape.undo()
            files.set_graph(_Graph(partial(replay, tape), tape.reset))

        runner._capture_graph = capture
        runner.use_cuda_graph_varlen = files.use_cuda_graph_varlen = runner.pad_inputs = True


@dataclass(frozen=True, slots=True)
class _Graph:
    """What transformers knows of a graph."""

    replay: Callable[[], None]
    reset: Callable[[], None]


def _tensors(values: object) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
