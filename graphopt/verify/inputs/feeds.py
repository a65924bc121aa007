"""Inputs for whole models: values that respect what each input means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from graphopt.errors import InconclusiveError
from graphopt.ir import Model, Node, Value, dtypes
from graphopt.ir.tensor import Array
from graphopt.verify.inputs import containers, floats, integers, texts
from graphopt.verify.inputs.masks import CAUSAL, MASKS, WITH_EMPTY_ROWS, kept, lowest
from graphopt.verify.inputs.meanings import Meaning, meanings
from graphopt.verify.inputs.points import points, with_points
from graphopt.verify.inputs.ranges import told
from graphopt.verify.inputs.sizes import Binding, shape_under
from graphopt.verify.inputs.uses import origin
from graphopt.verify.results import FedInput

DEFAULT: Final = "default"
PLAIN: Final = "plain"
OVERRIDDEN: Final = "overridden"
OVERRIDDEN_INTEGERS: Final = "overridden integers"
FULL: Final = "full"
GIVEN: Final = "given"
_ORDINARY: Final = {PLAIN, *MASKS, CAUSAL, floats.UNIFORM, GIVEN}


@dataclass(frozen=True)
class Feed:
    """One run's inputs. `kind` says what is particular in it, `kinds` what each input was taken for.

    `special` where it holds NaN, infinities or negative zeros, and the signs of zeros that the reference gives must
    match: of two zeros either one may be the larger.
    `risky` where the reference may refuse it: then it says nothing.
    """

    kind: str
    seed: int
    arrays: Mapping[str, Any]
    kinds: Mapping[str, str] = field(default_factory=dict)
    special: bool = False
    risky: bool = False

    @property
    def is_ordinary(self) -> bool:
        """Whether it holds numbers as models are made for: of about 1, and not all of one kind."""
        return self.kind in _ORDINARY

    @property
    def may_be_refused(self) -> bool:
        """Whether a candidate that refuses it is right all the same, as nobody means it: it is if its numbers differ
        that it is wrong. Gather takes indices that count from the end, a fused kernel for positions may not."""
        return self.kind == integers.NEGATIVE

    @property
    def label(self) -> str:
        """What the report calls it."""
        shapes = [shape for array in self.arrays.values() if (shape := containers.shape_of(array))]
        found = {"x".join(map(str, shape)) for shape in shapes if len(shape) > 1 or max(map(len, shapes)) == 1}
        return f"{self.kind} {min(found, key=lambda shape: (len(shape), shape))}" if found else self.kind

    def records(self) -> list[FedInput]:
        """The lines of the report."""
        return [
            FedInput(
                name, self.label, containers.shape_of(a), containers.type_of(a), self.kinds.get(name, ""), self.seed
            )
            for name, a in self.arrays.items()
        ]


@dataclass(frozen=True)
class _Recipe:
    """What a kind of feed holds: the form of masks, the kind of real numbers, of integers, and of numbers as text.

    `overridden` are the kinds of element types, as NumPy calls them, of which initializers get other values.
    """

    mask: str = FULL
    numbers: str = floats.NORMAL
    integers: str = integers.PLAIN
    numerals: str = texts.WHOLE
    overridden: str = ""
    special: bool = False
    risky: bool = True


_RECIPES: Final[Mapping[str, _Recipe]] = {
    PLAIN: _Recipe(risky=False),
    **{kind: _Recipe(mask=kind, risky=False) for kind in (*MASKS, CAUSAL)},
    OVERRIDDEN: _Recipe(overridden="fb"),
    OVERRIDDEN_INTEGERS: _Recipe(overridden="iu"),
    **{kind: _Recipe(mask=MASKS[0], numbers=kind) for kind in floats.KINDS},
    **{kind: _Recipe(integers=kind) for kind in integers.KINDS},
    texts.FRACTIONS: _Recipe(numerals=texts.FRACTIONS),
    **{kind: _Recipe(numbers=kind, special=True) for kind in floats.SPECIAL},
}
_CHOOSING: Final = {"MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "Max", "Min", "Clip", "Relu"}
CAUTION: Final = 3
_MOST_ELEMENTS: Final = 1 << 28
"""Of one input; several feeds are there at a time."""
_CAUTIOUS: Final = (
    (floats.NORMAL, integers.PLAIN),
    (floats.POSITIVE, integers.PLAIN),
    (floats.ONES, integers.ONES),
    (floats.ONES, integers.LEAST),
)


class Feeder:
    """Makes feeds for one model. Inputs that cannot be made raise InconclusiveError GO017 when first asked for.

    `caution`, from 0 to `CAUTION`, says how far the plain numbers in feeds avoid what a model may refuse: they are
    positive, then all ones, then integers are the least that there may be.
    """

    def __init__(
        self, model: Model, seed: int, assume: frozenset[str] = frozenset(), candidate: Model | None = None
    ) -> None:
        self._model = model
        self._seed = seed
        self._masks = [kind for kind in MASKS if not ("no-empty-rows" in assume and kind in WITH_EMPTY_ROWS)]
        self._meanings = meanings(model)
        self._points = points(model, candidate)
        self._ops = {node.op for scope in model.scopes() for node in scope.ops()}
        self._inputs = [node for node in model.graph.inputs if node.op == "Input"]
        self.caution = 0

    def feed(self, kind: str, binding: Binding, number: int = 0) -> Feed:
        """The feed of this kind and these sizes; `number` tells feeds of one kind apart."""
        recipe = _RECIPES[kind]
        seed = self._seed * 1000 + number
        rng = np.random.default_rng(seed)
        made = {node.output.name: self._made(node, recipe, binding, number, rng) for node in self._inputs}
        arrays = {name: array for name, (array, _) in made.items()}
        special = recipe.special and not self._ops & _CHOOSING
        # Of several contents the first one is the surest.
        risky = recipe.risky or (number > 0 and any(len(one.contents) > 1 for one in self._meanings.values()))
        return Feed(kind, seed, arrays, {name: text for name, (_, text) in made.items()}, special, risky)

    def feeds(self, bindings: Sequence[Binding]) -> list[Feed]:
        """Feeds that together show every form of mask, two sizes, and other values of overridable initializers."""
        if self._forms():
            kinds = self._forms()
        else:
            kinds = [PLAIN, PLAIN, *self._integer_kinds()[:2]]
            kinds += [PLAIN] * (3 - len(kinds))
        kinds += self._overriding()
        return [self.feed(kind, bindings[i % len(bindings)], i) for i, kind in enumerate(kinds)]

    def all_feeds(self, bindings: Sequence[Binding]) -> list[Feed]:
        """Feeds that show every size, and numbers of every kind, as well; those that tell most come first."""
        kinds = self._forms() or [PLAIN, PLAIN]
        found = [(kind, bindings[i % min(2, len(bindings))]) for i, kind in enumerate(kinds)]
        found += [(kind, bindings[0]) for kind in self._overriding()]
        found += [(kinds[0], binding) for binding in bindings[2:]]
        more = [*self._integer_kinds(), *self._text_kinds(), *self._number_kinds()]
        found += [(kind, bindings[i % min(2, len(bindings))]) for i, kind in enumerate(more)]
        return [self.feed(kind, binding, i) for i, (kind, binding) in enumerate(found)]

    def why(self, op: str, name: str) -> str:
        """Which input has a range that cannot be told, if the node of this operator and name reads one; else empty."""
        integral = {
            node.output for node in self._inputs if self._meanings[node.output.name].kind in ("integer", "index")
        }
        for node in self._model.graph.ops():
            if (node.op, node.name) == (op, name) and (found := origin(node, integral)) is not None:
                value, slot = found
                return f"the range of the input '{value.name}' cannot be told: {told(node, slot)}"
        return ""

    def _forms(self) -> list[str]:
        """The forms of masks to show; none where there is no mask."""
        masks = [meaning for meaning in self._meanings.values() if meaning.kind in ("mask", "bias")]
        square = [CAUSAL] if any(mask.square for mask in masks) else []
        return [*self._masks, *square] if masks else []

    def _integer_kinds(self) -> list[str]:
        wraps = any(meaning.wraps for meaning in self._meanings.values())
        kinds = [integers.NEGATIVE] if wraps else []
        return [*kinds, integers.WHOLE] if self._has("integer") else kinds

    def _text_kinds(self) -> list[str]:
        return [texts.FRACTIONS] if any(meaning.is_numeral for meaning in self._meanings.values()) else []

    def _number_kinds(self) -> tuple[str, ...]:
        if self._has("number"):
            shapes = (node.output.shape or () for node in self._inputs if node.data is None)
            lone = any(all(size == 1 for size in shape) for shape in shapes)
            # Kernels pass NaN on or not by where in a window it lies.
            left_out = {*([] if lone else [floats.LONE]), *([floats.NAN] if "MaxPool" in self._ops else [])}
            return tuple(kind for kind in (*floats.KINDS, *floats.SPECIAL) if kind not in left_out)
        return floats.KINDS[:1] if self._has("bias") else ()

    def _has(self, kind: str) -> bool:
        fed = (self._meanings[node.output.name] for node in self._inputs if node.data is None)
        return any(meaning.kind == kind for meaning in fed)

    def _overriding(self) -> list[str]:
        """The feeds that give overridable initializers other values: of what may be sizes and indices, apart."""
        kinds = [dtypes.to_numpy(node.data.dtype).kind for node in self._inputs if node.data is not None]
        return [kind for kind in (OVERRIDDEN, OVERRIDDEN_INTEGERS) if set(kinds) & set(_RECIPES[kind].overridden)]

    def _made(
        self, node: Node, recipe: _Recipe, binding: Binding, number: int, rng: np.random.Generator
    ) -> tuple[Any, str]:
        """What an input is fed, and how the report calls it."""
        value = node.output
        if node.data is not None:
            default = node.data.numpy()
            if default.dtype.kind not in recipe.overridden or not recipe.overridden:
                return default, DEFAULT
            return _other(default, self._meanings[value.name].range(binding), rng), OVERRIDDEN
        meaning = self._meanings[value.name]
        try:
            return self._array(value, meaning, recipe, binding, number, rng), _described(meaning, recipe, binding)
        except MemoryError as error:
            message, hint = f"the input '{value.name}' is too large to be fed", "bind a smaller size with --dim"
            raise InconclusiveError("GO017", message, str(self._model.path or "model"), hint) from error

    def _array(
        self,
        value: Value,
        meaning: Meaning,
        recipe: _Recipe,
        binding: Binding,
        number: int,
        rng: np.random.Generator,
    ) -> Any:
        shape = self._shape(value, binding) if value.dtype else ()
        if value.dtype == 0:
            return self._contained(value, binding, number, rng)
        if value.dtype == dtypes.STRING:
            pool = texts.NUMERALS[recipe.numerals] if meaning.is_numeral else texts.pool(meaning.words, rng)
            return texts.texts(pool, shape, rng)
        dtype = dtypes.to_numpy(value.dtype)
        match meaning.kind:
            case "index" | "integer":
                kind = recipe.integers if recipe.integers != PLAIN else _CAUTIOUS[self.caution][1]
                drawn = integers.integers(meaning, kind, shape, dtype, binding, number, rng)
                free = kind in (PLAIN, integers.NEGATIVE) and not (meaning.contents or meaning.distinct)
                among = self._points[value.name] if free and not meaning.is_size else ()
                return with_points(drawn, among, meaning.range(binding), rng) if among else drawn
            case "mask":
                keep = kept(recipe.mask, shape, rng, meaning.square)
                return (~keep if meaning.drops else keep).astype(dtype)
            case "bias" if recipe.numbers == floats.UNIFORM:
                # A mask that is added may be any numbers: distances, for one.
                return floats.numbers(recipe.numbers, shape, dtype, None, rng)
            case "bias":
                return np.where(kept(recipe.mask, shape, rng, meaning.square), 0.0, lowest(value.dtype)).astype(dtype)
        kind = recipe.numbers if recipe.numbers != floats.NORMAL else _CAUTIOUS[self.caution][0]
        made = floats.numbers(kind, shape, dtype, meaning.span, rng)
        if kind == floats.TIES and not (meaning.span is not None and meaning.span.strict):
            return with_points(made, self._points[value.name], None, rng)
        return made

    def _shape(self, value: Value, binding: Binding) -> tuple[int, ...]:
        if value.shape is None:
            raise self._unknown(f"the rank of the input '{value.name}' cannot be told from the model")
        shape = shape_under(value.shape, binding)
        if shape is None:
            raise self._unknown(f"the input '{value.name}' would have a negative size")
        if math.prod(shape) > _MOST_ELEMENTS:
            raise MemoryError
        return shape

    def _contained(self, value: Value, binding: Binding, number: int, rng: np.random.Generator) -> Any:
        proto = value.info.type if value.info is not None else None
        try:
            return containers.contained(proto, binding, number, rng)
        except ValueError as error:
            raise self._unknown(f"{error} for the input '{value.name}' cannot be told from the model") from error

    def _unknown(self, message: str) -> InconclusiveError:
        where, hint = str(self._model.path or "model"), "give real inputs with --inputs FILE.npz"
        return InconclusiveError("GO017", message, where, hint)


def _other(default: Array, within: tuple[int, int] | None, rng: np.random.Generator) -> Array:
    """Another value of the type of an overridable initializer; integers stay `within` a range, where one is known."""
    if default.dtype == bool:
        return ~default
    if default.dtype.kind in "iu":
        low, high = within or (int(default.min(initial=0)), int(default.max(initial=0)) + 2)
        turned = low + (default.astype(np.int64) - low + 1) % (high - low)
        return turned.astype(default.dtype)
    scale = float(np.std(default)) or float(np.abs(default).max(initial=0)) or 1.0
    return (default + 0.5 * scale * rng.normal(size=default.shape)).astype(default.dtype)


def _described(meaning: Meaning, recipe: _Recipe, binding: Binding) -> str:
    match meaning.kind:
        case "index":
            found = meaning.range(binding)
            return f"index in [{found[0]}, {found[1]})" if found is not None and not meaning.contents else "shape"
        case "mask":
            return f"mask, {recipe.mask}"
        case "bias":
            return f"additive mask, {recipe.mask}"
        case "number":
            return recipe.numbers
        case "integer":
            return f"integer, {recipe.integers}"
    return meaning.kind
