"""What constant folding may do to one model. It is counted, not timed, so the result is the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from onnx import TensorProto

from graphopt.ir.node import Node
from graphopt.ir.tensor import Tensor
from graphopt.passes import evaluate
from graphopt.rewrite import Limits, Refusal

SMALL: Final = 65_536
"""Results up to this many bytes are made of anything, larger ones of weights that nothing else reads."""
LONGEST: Final = 1 << 26
"""How many steps one result may take: about a second, and some hundred megabytes on the way."""
_MOVES: Final = {
    **dict.fromkeys(("ConstantOfShape", "Expand", "Flatten", "Gather", "Reshape", "Shape"), 1),
    **dict.fromkeys(("Size", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"), 1),
}
"""What reads no more elements than it writes."""
_STEPS: Final = _MOVES | {"Cast": 1, "Concat": 1, "QuantizeLinear": 8} | dict.fromkeys(evaluate.REDUCTIONS, 8)
"""Steps for each element that is read or written: some need several numbers of 8 bytes on the way."""
_USUAL: Final = 4


@dataclass
class Budget:
    """What is left: `steps`, bytes of `small` and of `large` results; `stopped` says where that did not suffice."""

    steps: int = 1 << 30
    small: int = 64 << 20
    large: int = Limits.new_bytes
    stopped: dict[str, Refusal] = field(default_factory=dict)

    def allows(self, node: Node, steps: int, size: int) -> bool:
        """Whether a result of `size` bytes may take so many steps, which are taken off; if not, that is noted."""
        reason = self._refusal(steps, size)
        if reason:
            self.stopped.setdefault(node.label, Refusal("fold_constants", node.label, node.label, reason))
        else:
            self.steps -= steps
        return not reason

    def write(self, size: int) -> None:
        """Takes off what a result of `size` bytes takes."""
        if size <= SMALL:
            self.small -= size
        else:
            self.large -= size

    def _refusal(self, steps: int, size: int) -> str:
        if steps > LONGEST:
            return f"it would take {steps:,} steps, and one result may take {LONGEST:,}"
        if steps > self.steps:
            return "the steps for all results are used up"
        if size > (self.small if size <= SMALL else self.large):
            what = "results up to 64 KiB" if size <= SMALL else "new weights (--max-new-weights)"
            return f"the bytes for all {what} are used up"
        return ""


def steps_of(node: Node, operands: Sequence[Tensor | None], count: int) -> int:
    """The steps that a result of `count` elements takes: what has to be decoded, read and written."""
    moves = node.op in _MOVES
    read = sum(tensor.size for tensor in operands if tensor is not None and not (moves and _is_there(tensor)))
    return _STEPS.get(node.op, _USUAL) * (count + read)


def _is_there(tensor: Tensor) -> bool:
    """Whether the numbers need not be decoded, or computed, all of them."""
    proto = tensor.proto
    if proto is None or tensor.region is not None:
        return not tensor.is_deferred
    return proto.HasField("raw_data") or proto.data_location == TensorProto.EXTERNAL
