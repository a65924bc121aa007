"""The inputs of the zoo's models: their axes, fixed or named, and the numbers drawn for them.

A case is a set of sizes and a kind of mask: ``3x37.left`` is a batch of three, 37 long, whose first positions are
masked.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

Tensors = dict[str, torch.Tensor]
Shape = tuple[int, ...]

MASKS = ("full", "right", "left", "hole", "empty")
SIZES: tuple[Mapping[str, int], ...] = (
    {"batch": 2, "sequence": 16, "target": 9, "past": 5, "total": 21},
    {"batch": 3, "sequence": 37, "target": 14, "past": 11, "total": 48},
)
"""What the named axes of an input measure; exporters see the last of them."""


@dataclass(frozen=True)
class Input:
    """One input: its axes, fixed or named, and what it holds.

    Ids are int64 in 2 … 127 (RoBERTa counts positions by the padding id, 1), segments and masks int64 of 0 and 1,
    numbers standard normal float32. What ``hides`` is a bool mask that is true where a mask of 0 and 1 is 0.
    """

    axes: tuple[str | int, ...]
    holds: str = "numbers"

    def shape(self, sizes: Mapping[str, int]) -> Shape:
        """The shape at these sizes of the named axes."""
        return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in self.axes)

    def draw(self, name: str, sizes: Mapping[str, int], kind: str) -> torch.Tensor:
        """The same numbers for the same name and shape, whatever the model."""
        shape = self.shape(sizes)
        generator = torch.Generator().manual_seed(zlib.crc32(f"{name}{shape}".encode()))
        match self.holds:
            case "ids":
                return torch.randint(2, 128, shape, generator=generator)
            case "segments":
                return torch.randint(0, 2, shape, generator=generator)
            case "mask":
                return mask(shape, kind)
            case "hides":
                return mask(shape, kind) == 0
            case _:
                return torch.randn(shape, generator=generator)


def cases(inputs: Mapping[str, Input], fixed: tuple[str, ...] = ()) -> Iterator[tuple[str, Tensors]]:
    """Named feeds: two sets of sizes, each with every kind of mask where the model takes one.

    No row is fully masked where a mask says what is hidden: torch's own layers give no numbers then. A ``fixed`` axis
    has the last of its sizes throughout.
    """
    holds = {entry.holds for entry in inputs.values()}
    kinds = MASKS if "mask" in holds else MASKS[:-1] if "hides" in holds else MASKS[:1]
    for sizes in ({**entry, **{axis: SIZES[-1][axis] for axis in fixed}} for entry in SIZES):
        for kind in kinds:
            feeds = {name: entry.draw(name, sizes, kind) for name, entry in inputs.items()}
            yield f"{sizes['batch']}x{sizes['sequence']}.{kind}", feeds


def mask(shape: Shape, kind: str) -> torch.Tensor:
    """A mask (B, S) of int64 in which row r hides S/4 + r positions at the kind's place; 'empty' hides all of row 0."""
    rows, length = shape
    allowed = torch.ones(shape, dtype=torch.int64)
    for row in range(rows if kind != "full" else 0):
        hidden = length // 4 + row
        start = {"right": length - hidden, "left": 0, "hole": length // 3, "empty": length - hidden}[kind]
        allowed[row, start : start + hidden] = 0
    if kind == "empty":
        allowed[0] = 0
    return allowed
