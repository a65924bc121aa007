"""What the equation of an Einsum says."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

from graphopt.ir import Shape, Size


@dataclass(frozen=True)
class Equation:
    """The labels of the operands and of the result, one for each dimension, and the size of each label."""

    operands: tuple[str, ...]
    result: str
    sizes: dict[str, Size]

    def summed(self) -> str:
        """The labels that the result does not have."""
        return "".join(label for label in self.sizes if label not in self.result)


def read_equation(text: str, shapes: Sequence[Shape | None]) -> Equation | str:
    """The equation of an Einsum over operands of these shapes, or why it is more than products and sums of labels.

    Dimensions under `...` get labels of their own, counted from the last. A label that stands twice in one term is a
    diagonal; one that has two sizes broadcasts, or is not known to be the same.
    """
    written, _, result = text.replace(" ", "").partition("->")
    terms = written.split(",")
    if len(terms) != len(shapes):
        return f"{len(shapes)} operands for '{text}'"
    spare = [label for label in string.digits + string.ascii_uppercase if label not in text]
    most, labeled = "", []
    for term, shape in zip(terms, shapes, strict=True):
        free = len(shape) - len(term.replace("...", "")) if shape is not None else -1
        if free < 0 or free > len(spare) or (free and "..." not in term):
            return f"an operand is not of the rank of '{term}'"
        under = "".join(reversed(spare[:free]))
        most = max(most, under, key=len)
        labeled.append(term.replace("...", under))
    if "->" not in text:
        once = {label for label in written if label.isalpha() and written.count(label) == 1}
        result = "..." + "".join(sorted(once))
    result = result.replace("...", most)
    if any(len(set(term)) < len(term) for term in (*labeled, result)):
        return f"'{text}' takes a diagonal"
    sizes: dict[str, Size] = {}
    for term, shape in zip(labeled, shapes, strict=True):
        for label, size in zip(term, shape or (), strict=True):
            if sizes.setdefault(label, size) != size:
                return f"a dimension of '{text}' is {sizes[label]} in one operand and {size} in another"
    return Equation(tuple(labeled), result, sizes)
