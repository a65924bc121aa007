"""What the operators of a model say of its symbolic sizes, and the sizes that follow from others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

from graphopt.ir import Dim, Model, Node, Shape, dims
from graphopt.ir.dims import Size
from graphopt.ir.operands import known_content, normalized

Equation = tuple[Size, Size]
Solution = Mapping[str, Size]


def must_hold(model: Model) -> list[Equation]:
    """Pairs of sizes of which the operators of the main graph want that they are equal."""
    return [pair for node in model.graph.ops() for pair in _differing(_RULES.get((node.domain, node.op)), node)]


def should_hold(model: Model) -> list[Equation]:
    """Pairs of sizes that are equal, unless one of them is 1 and is broadcast."""
    return [pair for node in model.graph.ops() for pair in _differing(_broadcast_rule(node), node)]


def solve(equations: Sequence[Equation], bound: Mapping[str, int], known: Collection[str]) -> Solution:
    """Sizes of names in terms of others, as far as the equations say; `bound` are numbers that stay.

    A name that is not `known` is settled before one that is. An equation that contradicts the earlier ones is left out,
    and one after which a size would be too large an expression.
    """
    found: dict[str, Size] = dict(bound)
    for equation in equations:
        with suppress(dims.TooLarge):
            found = _solved(equation, found, known)
    return {name: size for name, size in found.items() if name not in bound}


def _solved(equation: Equation, found: dict[str, Size], known: Collection[str]) -> dict[str, Size]:
    """`found`, and what follows from one more equation. Raises: TooLarge."""
    rest = _reduced(_put(dims.sub(*equation), found))
    name = _to_settle(rest, known)
    value = _settled(rest, name) if name is not None else None
    if name is None or value is None:
        return found
    return {other: _put(size, {name: value}) for other, size in found.items()} | {name: value}


def _put(size: Size, values: Mapping[str, Size]) -> Size:
    """`size` with names replaced by what they are."""
    if isinstance(size, int) or not any(name in values for name in dims.symbols(size)):
        return size
    total: Size = 0
    for names, factor in size.terms:
        product = dims.product(values.get(name, dims.symbol(name)) for name in names)
        total = dims.add(total, dims.mul(factor, product))
    return total


def _reduced(size: Size) -> Size:
    """An expression that is 0 where `size` is, for sizes that are not: common factors are left out."""
    if isinstance(size, int):
        return size
    for name in sorted(dims.symbols(size)):
        while all(name in names for names, _ in size.terms):
            less = dims.divide(size, dims.symbol(name))
            if less is None or isinstance(less, int):
                return size
            size = less
    return size


def _to_settle(rest: Size, known: Collection[str]) -> str | None:
    """The name that an expression is solved for: unknown ones first, then one that is a sum of others."""
    if isinstance(rest, int):
        return None
    linear = [names[0] for names, _ in rest.terms if len(names) == 1]
    alone = [name for name in linear if sum(name in names for names, _ in rest.terms) == 1]
    fitting = [name for name in alone if _settled(rest, name) is not None]
    return min(fitting, key=lambda name: (name in known, _has_difference(rest, name), name), default=None)


def _settled(rest: Size, name: str) -> Size | None:
    """`name`, where `rest` is 0; None where it would be no whole number, or less than 0."""
    assert isinstance(rest, Dim)
    factor = next(factor for names, factor in rest.terms if names == (name,))
    others = dims.sub(rest, dims.mul(factor, dims.symbol(name)))
    value = dims.divide(dims.mul(others, -1 if factor > 0 else 1), abs(factor))
    return None if isinstance(value, int) and value < 0 else value


def _has_difference(rest: Size, name: str) -> bool:
    value = _settled(rest, name)
    return isinstance(value, Dim) and any(factor < 0 for _, factor in value.terms)


Rule = Callable[[Node], Iterator[Equation]]


def _differing(rule: Rule | None, node: Node) -> Iterator[Equation]:
    if rule is not None:
        yield from ((a, b) for a, b in rule(node) if a != b and not (isinstance(a, int) and isinstance(b, int)))


def _shapes(node: Node) -> list[Shape]:
    """The shapes of all operands; none where one is not known."""
    shapes = [value.shape for value in node.inputs[: node.arity] if value is not None]
    return [shape for shape in shapes if shape is not None] if None not in shapes else []


def _two(node: Node) -> tuple[Shape, Shape]:
    """The shapes of the first two operands; empty where they are not known."""
    first, second, *_ = [*_shapes(node), (), ()]
    return first, second


def _product(node: Node) -> Iterator[Equation]:
    a, b = _two(node)
    if a and b:
        column = len(a) > 1 and node.attr("transA", 0)
        row = len(b) > 1 and not node.attr("transB", 0)
        yield a[-2 if column else -1], b[-2 if row else -1]


def _joined(node: Node) -> Iterator[Equation]:
    shapes = _shapes(node)
    axis = normalized(node.attr("axis", 0), len(shapes[0])) if shapes else None
    for shape in shapes[1:]:
        if len(shape) == len(shapes[0]):
            yield from (pair for i, pair in enumerate(zip(shapes[0], shape, strict=True)) if i != axis)


def _convolved(node: Node) -> Iterator[Equation]:
    x, w = _two(node)
    if len(x) > 1 and len(w) > 1:
        yield x[1], dims.mul(w[1], node.attr("group", 1)) if node.op == "Conv" else w[0]


def _normalized(node: Node) -> Iterator[Equation]:
    """A scale for each channel."""
    x, scale = _two(node)
    if len(x) > 1 and len(scale) == 1:
        yield x[1], scale[0]


def _last(node: Node) -> Iterator[Equation]:
    """A scale, or a bias, for each feature."""
    x, *others = _shapes(node) or [()]
    yield from ((x[-1], other[-1]) for other in others if x and other)


def _alike(node: Node) -> Iterator[Equation]:
    first, second = _two(node)
    if len(first) == len(second):
        yield from zip(first, second, strict=True)


def _reshaped(node: Node) -> Iterator[Equation]:
    """As many elements before as after."""
    data = node.input(0)
    shape = data.shape if data is not None else None
    written = node.attrs.get("shape")
    content: Sequence[Size] | None = tuple(written) if written is not None else known_content(node.input(1))
    if shape is None or content is None or -1 in content:
        return
    copied = not node.attr("allowzero", 0)
    if any(size == 0 and (not copied or i >= len(shape)) for i, size in enumerate(content)):
        return
    sizes = [shape[i] if size == 0 else size for i, size in enumerate(content)]
    yield dims.product(shape), dims.product(sizes)


def _split(node: Node) -> Iterator[Equation]:
    shapes, content = _shapes(node), known_content(node.input(1))
    axis = normalized(node.attr("axis", 0), len(shapes[0])) if shapes else None
    if content is not None and axis is not None:
        total: Size = 0
        for size in content:
            total = dims.add(total, size)
        yield shapes[0][axis], total


def _broadcast_rule(node: Node) -> Rule | None:
    if not node.domain and node.op in _BROADCASTING:
        return _broadcast
    if not node.domain and node.op == "Expand":
        return _expanded
    return _batches if (node.domain, node.op) in _PRODUCTS else None


def _broadcast(node: Node) -> Iterator[Equation]:
    first, *others = _shapes(node) or [()]
    for shape in others:
        yield from _aligned(first, shape)


def _expanded(node: Node) -> Iterator[Equation]:
    shapes, content = _shapes(node), known_content(node.input(1))
    if shapes and content is not None:
        yield from _aligned(shapes[0], content)


def _batches(node: Node) -> Iterator[Equation]:
    a, b = _two(node)
    if len(a) > 2 and len(b) > 2:
        yield from _aligned(a[:-2], b[:-2])


def _aligned(a: Sequence[Size], b: Sequence[Size]) -> Iterator[Equation]:
    pairs = zip(reversed(a), reversed(b), strict=False)
    # What is added to something empty is 1: with 0 the whole model might be empty.
    yield from (pair for pair in pairs if not {0, 1} & set(pair))


_PRODUCTS: Final = {("", "MatMul"), ("com.microsoft", "FusedMatMul")}
_BROADCASTING: Final = {
    *("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Where", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"),
    *("And", "Or", "Xor", "Max", "Min", "Sum", "Mean", "PRelu", "BitwiseAnd", "BitwiseOr"),
}
_RULES: Final[dict[tuple[str, str], Rule]] = {
    **dict.fromkeys([*_PRODUCTS, ("", "Gemm")], _product),
    ("", "Concat"): _joined,
    ("", "Conv"): _convolved,
    ("", "ConvTranspose"): _convolved,
    ("", "BatchNormalization"): _normalized,
    ("", "InstanceNormalization"): _normalized,
    ("", "LayerNormalization"): _last,
    ("", "RMSNormalization"): _last,
    **{("com.microsoft", op): _last for op in ("BiasGelu", "FastGelu")},
    **{("com.microsoft", op): _alike for op in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")},
    ("", "Reshape"): _reshaped,
    ("", "Split"): _split,
}
