"""What a model's inputs mean, from how they are used: indices and their range, masks, shapes, plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from graphopt.ir import Model, Value, dims, dtypes
from graphopt.ir.dims import Size
from graphopt.verify.inputs.flat import without_functions
from graphopt.verify.inputs.floats import Span, span
from graphopt.verify.inputs.masks import MaskUse, mask_use
from graphopt.verify.inputs.ranges import Contents, before, bound
from graphopt.verify.inputs.texts import words
from graphopt.verify.inputs.uses import Use, gives_sizes, uses

Kind = Literal["index", "mask", "bias", "number", "integer", "text"]


@dataclass(frozen=True)
class Meaning:
    """What an input is taken for.

    `index`: an integer in [low, high) and in each of `ranges`, whose ends may be symbolic, or one of `contents` as a
    whole; `mask`: 1 (or True) where something is kept, or where it is left out if it `drops`; `bias`: 0 where something
    is kept and the lowest float where not, added to scores; `number`: a real number, within `span`; `integer`: one that
    is counted with, and should be small where it `is_size`; `text`: strings, `words` among them, or numbers as text
    where it `is_numeral`.
    """

    kind: Kind
    low: int | None = None
    high: int | None = None
    ranges: tuple[tuple[Size, Size], ...] = ()
    wraps: bool = False
    contents: tuple[Contents, ...] = ()
    distinct: bool = False
    drops: bool = False
    square: bool = False
    span: Span | None = None
    is_size: bool = False
    words: tuple[str, ...] = ()
    is_numeral: bool = False

    def range(self, binding: Mapping[str, int]) -> tuple[int, int] | None:
        """[low, high) under a binding; None where there is none."""
        low, high = self.low, self.high
        for least, end in self.ranges:
            try:
                a, b = dims.evaluate(least, binding), dims.evaluate(end, binding)
            except KeyError:
                continue
            low, high = a if low is None else max(low, a), b if high is None else min(high, b)
        return (low, high) if low is not None and high is not None and low < high else None


def meanings(model: Model) -> dict[str, Meaning]:
    """The meaning of every input, by name; `model` has its types inferred."""
    seen = without_functions(model) if model.functions else model
    values = {node.output.name: seen.graph.names[node.output.name] for node in model.graph.inputs if node.op == "Input"}
    return {name: _meaning(seen, value) for name, value in values.items()}


def _meaning(model: Model, value: Value) -> Meaning:
    if value.dtype == dtypes.STRING:
        return Meaning("text", words=words(model), is_numeral=any(map(_is_parsed, uses(model, value))))
    found = list(uses(model, value))
    mask = _mask([one for use in found if (one := mask_use(use)) is not None], value)
    if value.dtype == dtypes.BOOL:
        return mask or Meaning("mask", square=_is_square(value))
    if value.dtype not in dtypes.INTEGERS:
        return mask or Meaning("number", span=span(found))
    index = _index(found)
    if index is not None:
        return index
    named = "mask" in value.name.lower()
    if value.rank != 0 and (mask is not None or named):
        return mask or Meaning("mask", square=_is_square(value))
    return Meaning("integer", is_size=gives_sizes(value))


def _is_parsed(use: Use) -> bool:
    return use.node.is_op("Cast") and use.value.dtype == dtypes.STRING and use.node.attr("to") != dtypes.STRING


def _mask(found: list[MaskUse], value: Value) -> Meaning | None:
    """A mask, if any use says so: what is added to scores is no condition, and is a float."""
    if any(one.kind == "bias" for one in found):
        return Meaning("bias", square=_is_square(value)) if value.dtype in dtypes.FLOATS else None
    drops = {one.drops for one in found if one.drops is not None}
    return Meaning("mask", drops=drops == {True}, square=_is_square(value)) if found else None


def _is_square(value: Value) -> bool:
    """Whether rows and columns are places of one sequence, or rows of a part of it."""
    shape = value.shape or ()
    return len(shape) > 2 or (len(shape) == 2 and shape[0] == shape[1])


def _index(found: list[Use]) -> Meaning | None:
    """The range that all uses together leave; None where no use says one."""
    bounds = [(use, one) for use in found if (one := bound(use)) is not None]
    ranges = [(pair, one) for use, one in bounds if (pair := _clipped(use, before(one, use))) is not None]
    contents = [one.contents for use, one in bounds if use.whole and use.factor == 1 and use.offset == 0]
    whole = next((some for some in contents if some), ())
    if not ranges and not whole:
        return None
    numbers = [(a, b) for (a, b), _ in ranges if isinstance(a, int) and isinstance(b, int)]
    return Meaning(
        "index",
        max((a for a, _ in numbers), default=None),
        min((b for _, b in numbers), default=None),
        tuple((a, b) for (a, b), _ in ranges if not (isinstance(a, int) and isinstance(b, int))),
        wraps=all(use.offset == 0 and use.factor == 1 and one.wraps for use, one in bounds),
        contents=whole,
        distinct=any(one.distinct for _, one in bounds),
    )


def _clipped(use: Use, pair: tuple[Size, Size] | None) -> tuple[Size, Size] | None:
    """The range, widened where a Clip lets through nothing else anyway, so that what it cuts is seen."""
    if pair is None:
        return None
    low, high = pair
    if use.low is not None and isinstance(low, int) and use.low >= low:
        low = use.low - 3
    if use.high is not None and isinstance(high, int) and use.high < high:
        high = use.high + 4
    return low, high
