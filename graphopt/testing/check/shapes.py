"""How a wanted shape is pushed down through each operator: what its operands must be for the result to be that."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from graphopt.ir import IR_DOMAIN, Tensor, dims, dtypes
from graphopt.ir.dims import Shape, Size
from graphopt.ir.schema import MICROSOFT, first_version, onnx_schema
from graphopt.rewrite import pattern as p
from graphopt.testing.check import attentions, images, rotations
from graphopt.testing.check.choices import Rejected
from graphopt.testing.check.terms import Call, Ints, Term, Unsupported

if TYPE_CHECKING:
    from graphopt.testing.check.grow import Grower, Want


@dataclass(frozen=True)
class OpRule:
    """`push` makes the term of an operation with the wanted shape; `natural` says one that goes with what is bound."""

    push: Callable[[Grower, p.Op, Want], Term]
    natural: Callable[[Grower, p.Op], Shape]


def rule(e: p.Op) -> OpRule:
    """How instances of an operation are made."""
    return _TABLE.get((e.domain, e.op), _OTHERS)


def unsupported(e: p.Expr | Call) -> Unsupported:
    what = f"operands of {e.op}" if isinstance(e, Call) else str(e)
    return Unsupported(f"no shapes are known for {what}: name its operands, and give their types")


def required(domain: str, op: str, version: int) -> set[str]:
    """The attributes that an operation must have."""
    schema = onnx_schema(domain, op, version)
    return {name for name, a in schema.attributes.items() if a.required} if schema else set()


def broadcast(shapes: Iterable[Shape]) -> Shape:
    """The shape of an elementwise result. Raises: Rejected where the operands do not go together."""
    result: Shape = ()
    for shape in shapes:
        rank = max(len(result), len(shape))
        pairs = zip(_padded(result, rank), _padded(shape, rank), strict=True)
        result = tuple(_joined(a, b) for a, b in pairs)
    return result


def fits(shape: Shape, whole: Shape) -> bool:
    """Whether `shape` broadcasts to `whole` without widening it."""
    return len(shape) <= len(whole) and all(a in (1, b) for a, b in zip(_padded(shape, len(whole)), whole, strict=True))


def allows(e: p.Expr | None, rank: int) -> bool:
    """Whether an operand may have this rank: numbers have none, and an annotation may forbid it."""
    if not isinstance(e, p.Var):
        return not isinstance(e, p.Literal)
    c = e.constraint
    ranks = (c.rank,) if isinstance(c.rank, int) else c.rank
    return e.kind == "value" and (ranks is None or rank in ranks) and (c.dims is None or has_rank(c.dims, rank))


def has_rank(dims: p.Dims, rank: int) -> bool:
    """Whether a shape of this rank may be called `dims`."""
    return rank >= len(dims) - 1 if ... in dims else rank == len(dims)


def likely(name: str, default: Any) -> Sequence[Any]:
    """Values that an attribute may have, the default first."""
    if name in _VALUES:
        return _VALUES[name]
    if isinstance(default, bool) or default in (0, 1):
        return (default, 1 - default)
    if isinstance(default, (int, float)):
        return (default, 2 * default)
    return (default,)


_VALUES: dict[str, Sequence[Any]] = {
    "activation": ("Relu", "Tanh", "Sigmoid"),
    "allowzero": (0,),
    "approximate": ("none", "tanh"),
    "epsilon": (1e-5, 1e-2, 1e-12),
    "noop_with_empty_axes": (0,),
    "saturate": (1,),
    "scale": (0.5, 0.125, 1.0),
    "stash_type": (1,),
}


def _padded(shape: Shape, rank: int) -> Shape:
    return (*(1,) * (rank - len(shape)), *shape)


def _joined(a: Size, b: Size) -> Size:
    if 1 not in (a, b) and a != b:
        raise Rejected
    return b if a == 1 else a


# ---- elementwise ---------------------------------------------------------------------------------------------------


def _known(g: Grower, e: p.Op) -> Shape:
    """The shape of an operand that is bound, else any."""
    found = [g.known(child) for child in e.operands]
    return next((shape for shape in found if shape is not None), None) or _below(g, e)


def _below(g: Grower, e: p.Op) -> Shape:
    """Where one operand is an operation, what is natural for it."""
    inner = next((o for o in e.operands if isinstance(o, (p.Op, p.Alt, p.Chain, p.Scaled))), None)
    return g.natural(inner) if inner is not None else g.some_shape()


def _elementwise(g: Grower, e: p.Op, want: Want) -> Term:
    of_floats = e.op in _PREDICATES
    if e.op in _LOGICAL:
        want = want._replace(dtype=dtypes.BOOL)
    terms: list[Term | None] = []
    able = [at for at, o in enumerate(e.operands) if o is not None and allows(o, len(want.shape))]
    whole = g.choose("broadcasts", able) if able else 0
    attrs = g.attributes(e)
    for at in range(len(e.operands)):
        dtype = dtypes.BOOL if e.op == "Where" and not at else g.dtype if of_floats else want.dtype
        terms.append(g.operand(e, at, want._replace(dtype=dtype, exact=want.exact and at == whole)))
    return g.call(e, terms, broadcast(t.shape for t in terms if t is not None), want.dtype, attrs)


def _cast(g: Grower, e: p.Op, want: Want) -> Term:
    attrs = g.attributes(e, to=(want.dtype,))
    if attrs["to"] != want.dtype:
        raise Rejected
    of = e.operands[0]
    asked = of.constraint.dtype if isinstance(of, p.Var) else None
    floats = dict.fromkeys((g.dtype, want.dtype, dtypes.FLOAT, dtypes.FLOAT16))
    source = g.choose("dtypes", [t for t, name in dtypes.NAMES.items() if name in asked] if asked else list(floats))
    x = g.operand(e, 0, want._replace(dtype=source))
    assert x is not None
    return g.call(e, [x], x.shape, want.dtype, attrs)


def _vector_beside(g: Grower, e: p.Op, want: Want) -> Term:
    """A tensor and a vector of its last size."""
    x = g.operand(e, 0, want)
    b = g.operand(e, 1, want._replace(shape=want.shape[-1:]))
    return g.call(e, [x, b], want.shape, want.dtype, g.attributes(e))


def _along_axis(g: Grower, e: p.Op, want: Want) -> Term:
    attrs = _counted(g.attributes(e, axis=_axes_of(want.shape)), len(want.shape))
    x = g.operand(e, 0, want)
    assert x is not None
    return g.call(e, [x], x.shape, want.dtype, attrs)


def _axes_of(shape: Shape) -> list[int]:
    """The axes of a shape, the last one first."""
    if not shape:
        raise Rejected
    return list(reversed(range(len(shape))))


def _counted(attrs: dict[str, Any], rank: int) -> dict[str, Any]:
    """Axes counted from 0. Raises: Rejected where the rank has no such axis."""
    for name in ("axis", "axes"):
        axes = attrs.get(name)
        if axes is None:
            continue
        listed = [axes] if isinstance(axes, int) else axes
        if not all(-rank <= axis < rank for axis in listed):
            raise Rejected
        counted = [axis % rank for axis in listed]
        attrs[name] = counted[0] if isinstance(axes, int) else counted
    return attrs


# ---- products ------------------------------------------------------------------------------------------------------


def _matmul(g: Grower, e: p.Op, want: Want) -> Term:
    *leading, last = want.shape or (None,)
    if last is None:
        raise Rejected
    left, right = g.known(e.operands[0]), g.known(e.operands[1])
    inner = left[-1] if left else right[-2] if right and len(right) > 1 else g.size()
    batches = tuple(leading[:-1])
    rows = tuple(leading[-1:])
    kinds = [(a, b) for a, b in ((batches, batches), (batches, ()), ((), batches)) if rows or not a]
    kinds = [
        (a, b)
        for a, b in dict.fromkeys(kinds)
        if allows(e.operands[0], len((*a, *rows)) + 1) and allows(e.operands[1], len(b) + 2)
    ]
    if right is not None:
        kinds = [(a, b) for a, b in kinds if len(b) + 2 == len(right)]
    if left is not None:
        kinds = [(a, b) for a, b in kinds if len(a) + len(rows) + 1 == len(left)]
    if not kinds:
        raise Rejected
    a, b = g.choose("broadcasts", kinds)
    x = g.operand(e, 0, want._replace(shape=(*a, *rows, inner), exact=True))
    y = g.operand(e, 1, want._replace(shape=(*b, inner, last), exact=True))
    return g.call(e, [x, y], want.shape, want.dtype, {})


def _fused_matmul(g: Grower, e: p.Op, want: Want) -> Term:
    if len(want.shape) < 2:
        raise Rejected
    *batches, rows, columns = want.shape
    attrs = {"alpha": g.choose("attributes", (1.0, 0.5)), "transB": g.choose("attributes", (0, 1))}
    inner = g.size()
    right = (columns, inner) if attrs["transB"] else (inner, columns)
    x = g.operand(e, 0, want._replace(shape=(*batches, rows, inner), exact=True))
    y = g.operand(e, 1, want._replace(shape=(*batches, *right), exact=True))
    return g.call(e, [x, y], want.shape, want.dtype, attrs)


def _natural_matmul(g: Grower, e: p.Op) -> Shape:
    left, right = (g.known(o) for o in e.operands[:2])
    if left:
        return (*left[:-1], right[-1] if right else g.size())
    if right and len(right) > 1:
        return (*right[:-2], g.size(), right[-1])
    return g.some_shape((3, 2, 4))


def _gemm(g: Grower, e: p.Op, want: Want) -> Term:
    if len(want.shape) != 2:
        raise Rejected
    attrs = g.attributes(e)
    rows, columns = want.shape
    left = g.known(e.operands[0])
    inner = left[0 if attrs.get("transA") else 1] if left else g.size()
    a = (inner, rows) if attrs.get("transA") else (rows, inner)
    b = (columns, inner) if attrs.get("transB") else (inner, columns)
    terms = [
        g.operand(e, 0, want._replace(shape=a, exact=True)),
        g.operand(e, 1, want._replace(shape=b, exact=True)),
        g.operand(e, 2, want._replace(exact=False)),
    ]
    return g.call(e, terms, want.shape, want.dtype, attrs)


def _natural_gemm(g: Grower, e: p.Op) -> Shape:
    left = g.known(e.operands[0])
    return (left[0], g.size()) if left else g.some_shape((2,))


def _einsum(g: Grower, e: p.Op, want: Want) -> Term:
    """A product summed over one label, an outer product, or a transpose, with labels in several orders."""
    out = "abcdefgh"[: len(want.shape)]
    if len(out) < 2:
        raise Rejected
    batch, i, j = out[:-2], out[-2], out[-1]
    products = [f"{batch}{i}z,{batch}{j}z", f"z{j},{out[:-1]}z", f"{batch}z{j},z{i}{batch}"]
    terms = [*products, f"{out[:-1]},{j}", f"{out},{j}"] if len(e.operands) == 2 else [out[::-1], out[1:] + out[0], out]
    attrs = g.attributes(e, equation=[f"{term}->{out}" for term in terms])
    sizes = {**dict(zip(out, want.shape, strict=True)), "z": g.size()}
    shapes = [tuple(sizes[label] for label in term) for term in attrs["equation"].split("->")[0].split(",")]
    operands = [g.operand(e, at, want._replace(shape=shape, exact=True)) for at, shape in enumerate(shapes)]
    return g.call(e, operands, want.shape, want.dtype, attrs)


def _attention(g: Grower, e: p.Op, want: Want) -> Term:
    if len(want.shape) != 4:
        raise Rejected
    batch, heads, rows, width = want.shape
    attrs = g.attributes(
        e, scale=_VALUES["scale"], guard=(0, 1), softmax_dtype=(0, dtypes.FLOAT), causal=(0,), cap=(0.0,)
    )
    inner, positions = g.size(), g.choose("shared", (rows, g.size()))
    shared = g.choose("shared", (heads, heads, 1))
    shapes: list[Shape] = [(heads, rows, inner), (shared, positions, inner), (shared, positions, width)]
    terms = [g.operand(e, at, want._replace(shape=(batch, *s), exact=True)) for at, s in enumerate(shapes)]
    bias = want._replace(shape=(batch, heads, rows, positions), exact=False)
    return g.call(e, [*terms, g.operand(e, 3, bias)], want.shape, want.dtype, attrs)


# ---- normalizations and reductions ---------------------------------------------------------------------------------


def _normalization(g: Grower, e: p.Op, want: Want) -> Term:
    shape = want.shape
    attrs = _counted(g.attributes(e, axis=[*_axes_of(shape)[:1] * 2, *_axes_of(shape)]), len(shape))
    whole = shape[attrs.get("axis", len(shape) - 1) :]
    terms = [g.operand(e, 0, want._replace(exact=True))]
    for slot in (1, 2):
        part = g.choose("broadcasts", [whole, whole, whole, whole[-1:], (1,)])
        terms.append(g.operand(e, slot, want._replace(shape=part, exact=True)))
    return g.call(e, terms, shape, want.dtype, attrs)


def _reduction(g: Grower, e: p.Op, want: Want) -> Term:
    shape = want.shape
    rank = len(shape)
    sets = [[rank - 1], [rank - 1], [rank - 2, rank - 1], [0], [1], [1, rank - 1], None]
    legal = [
        axes for axes in sets if axes is None or (len(set(axes)) == len(axes) and all(0 <= a < rank for a in axes))
    ]
    if not rank:
        raise Rejected
    attrs = g.attributes(e, axes=legal, keepdims=(1, 0))
    if not attrs.get("keepdims", 1):
        return _reduction_away(g, e, want, attrs)
    attrs = _counted(attrs, rank)
    x = g.operand(e, 0, want._replace(exact=True))
    axes = attrs.get("axes")
    reduced = tuple(1 if axes is None or at in axes else size for at, size in enumerate(shape))
    return g.call(e, [x], reduced, want.dtype, attrs)


def _reduction_away(g: Grower, e: p.Op, want: Want, attrs: dict[str, Any]) -> Term:
    axes = attrs.get("axes")
    known = g.known(e.operands[0])
    if axes is None:
        raise Rejected
    rank = len(want.shape) + len(axes)
    attrs = _counted(attrs, rank)
    rest = iter(want.shape)
    whole = known or tuple(g.size() if at in attrs["axes"] else next(rest) for at in range(rank))
    x = g.operand(e, 0, want._replace(shape=whole, exact=True))
    left = tuple(size for at, size in enumerate(whole) if at not in attrs["axes"])
    return g.call(e, [x], left, want.dtype, attrs)


def _skip_norm(g: Grower, e: p.Op, want: Want) -> Term:
    """A residual and its normalization: two operands of the whole shape, then vectors."""
    attrs = g.attributes(e)
    terms = [g.operand(e, at, want._replace(exact=True)) for at in (0, 1)]
    vector = want._replace(shape=want.shape[-1:], exact=True)
    terms += [g.operand(e, at, vector) for at in range(2, len(e.operands))]
    return Call(want.shape, want.dtype, e.op, e.domain, tuple(terms), attrs, 0, g.outputs(e))


# ---- views ---------------------------------------------------------------------------------------------------------


def _transpose(g: Grower, e: p.Op, want: Want) -> Term:
    rank = len(want.shape)
    usual = g.again("perm", "attributes", {str(perm): perm for perm in _permutations(rank)}) if e.rest else None
    attrs = g.attributes(e, perm=[usual] if e.rest else _permutations(rank))
    perm = attrs.get("perm") or list(reversed(range(rank)))
    if len(perm) != rank:
        raise Rejected
    source = tuple(want.shape[perm.index(at)] for at in range(rank))
    return g.call(e, [g.operand(e, 0, want._replace(shape=source, exact=True))], want.shape, want.dtype, attrs)


def _permutations(rank: int) -> list[list[int] | None]:
    """All permutations of small ranks, the usual ones of rank 4; without one, the order is reversed."""
    if rank == 4:
        return [[0, 2, 1, 3], [0, 1, 3, 2], [0, 2, 3, 1], [0, 1, 2, 3], [0, 3, 1, 2], [2, 0, 1, 3], None]
    moved = [list(perm) for perm in itertools.permutations(range(min(rank, 3)))]
    return [perm + list(range(3, rank)) for perm in reversed(moved)] + [None]


def _natural_transpose(g: Grower, e: p.Op) -> Shape:
    known, perm = g.known(e.operands[0]), e.attrs.get("perm")
    if isinstance(perm, list):
        return tuple(known[at] for at in perm) if known and len(known) == len(perm) else g.some_shape((len(perm),))
    return tuple(reversed(known)) if known else _below(g, e)


def _reshape(g: Grower, e: p.Op, want: Want) -> Term:
    source = g.known(e.operands[0]) or g.again("view", "views", _views_of(want.shape))
    if dims.product(source) != dims.product(want.shape):
        raise Rejected
    x = g.operand(e, 0, want._replace(shape=source, exact=True))
    return g.call(e, [x, g.sizes_operand(e, 1, want.shape, source)], want.shape, want.dtype, g.attributes(e))


def _factors(size: Size) -> Shape:
    """The names that a dimension is the product of."""
    names = size.terms[0][0] if isinstance(size, dims.Dim) else ()
    return tuple(map(dims.symbol, names)) if len(names) > 1 else (size,)


def _views_of(shape: Shape) -> dict[str, Shape]:
    """Shapes viewed as `shape`, by name: split where it merges, merged where it splits, with and without ones."""
    found: dict[str, Shape] = {}
    for at, size in enumerate(shape):
        before, after = shape[:at], shape[at + 1 :]
        if len(_factors(size)) > 1:
            found[f"split {at}"] = (*before, *_factors(size), *after)
        if after:
            found[f"merged {at}"] = (*before, dims.mul(size, after[0]), *after[1:])
        if size == 1:
            found[f"without {at}"] = (*before, *after)
    whole = tuple(factor for size in shape for factor in _factors(size))
    return {**found, "same": shape, "split": whole, "one more": (1, *shape)}


def _flatten(g: Grower, e: p.Op, want: Want) -> Term:
    if len(want.shape) != 2:
        raise Rejected
    first, second = want.shape
    left = g.choose("views", list(dict.fromkeys([_factors(first), (first,)])))
    right = g.choose("views", list(dict.fromkeys([_factors(second), (second,)])))
    attrs = g.attributes(e, axis=(len(left),))
    if attrs.get("axis", 1) != len(left):
        raise Rejected
    x = g.operand(e, 0, want._replace(shape=(*left, *right), exact=True))
    return g.call(e, [x], want.shape, want.dtype, attrs)


def _squeeze(g: Grower, e: p.Op, want: Want) -> Term:
    rank = len(want.shape) + 1
    attrs = _counted(g.attributes(e, axes=[[at] for at in range(rank)]), rank)
    axes = attrs.get("axes") or []
    if len(axes) != 1:
        raise Rejected
    source = (*want.shape[: axes[0]], 1, *want.shape[axes[0] :])
    return g.call(e, [g.operand(e, 0, want._replace(shape=source, exact=True))], want.shape, want.dtype, attrs)


def _unsqueeze(g: Grower, e: p.Op, want: Want) -> Term:
    ones = [[at] for at, size in enumerate(want.shape) if size == 1]
    if not ones:
        raise Rejected
    attrs = _counted(g.attributes(e, axes=ones), len(want.shape))
    axes = attrs.get("axes") or []
    if any(want.shape[at] != 1 for at in axes):
        raise Rejected
    source = tuple(size for at, size in enumerate(want.shape) if at not in axes)
    return g.call(e, [g.operand(e, 0, want._replace(shape=source, exact=True))], want.shape, want.dtype, attrs)


def _expand(g: Grower, e: p.Op, want: Want) -> Term:
    shape = want.shape
    narrow = [shape, *((*shape[:at], 1, *shape[at + 1 :]) for at in range(len(shape))), shape[1:]]
    source = g.known(e.operands[0]) or g.choose("views", list(dict.fromkeys(narrow)))
    x = g.operand(e, 0, want._replace(shape=source, exact=True))
    return g.call(e, [x, g.sizes_operand(e, 1, shape, source)], shape, want.dtype, g.attributes(e))


def _constant_of_shape(g: Grower, e: p.Op, want: Want) -> Term:
    sizes = [size for size in want.shape if isinstance(size, int)]
    if len(sizes) < len(want.shape):
        raise Rejected
    attrs = g.attributes(e, value=[Tensor.of(np.full(1, number, dtypes.to_numpy(want.dtype))) for number in (0, 1)])
    return g.call(e, [g.ints_operand(e, 0, *sizes)], want.shape, want.dtype, attrs)


def _slice(g: Grower, e: p.Op, want: Want) -> Term:
    axis = g.choose("attributes", _axes_of(want.shape))
    size = want.shape[axis]
    longer = (*want.shape[:axis], dims.add(size, 1), *want.shape[axis + 1 :])
    source, start, end, step = g.choose(
        "attributes",
        [
            (want.shape, 0, _FAR, 1),
            (longer, 1, _FAR, 1),
            (longer, 0, -1, 1),
            (want.shape, -1, -_FAR, -1),
        ],
    )
    x = g.operand(e, 0, want._replace(shape=source, exact=True))
    rest = [g.ints_operand(e, 1 + at, number) for at, number in enumerate((start, end, axis, step))]
    return g.call(e, [x, *rest], want.shape, want.dtype, {})


_FAR = (1 << 31) - 1


def _concat(g: Grower, e: p.Op, want: Want) -> Term:
    attrs = _counted(g.attributes(e, axis=_axes_of(want.shape)), len(want.shape))
    axis, count = attrs["axis"], len(e.operands)
    sizes: list[Size] = [want.shape[axis]]
    if count > 1:
        sizes, whole = list(g.parts(want.shape[axis], count)), g.number(want.shape[axis])
        sizes = g.choose("attributes", [sizes] if whole % count else [sizes, [whole // count] * count])
    shapes = [(*want.shape[:axis], size, *want.shape[axis + 1 :]) for size in sizes]
    terms = [g.operand(e, at, want._replace(shape=s, exact=True)) for at, s in enumerate(shapes)]
    return g.call(e, terms, want.shape, want.dtype, attrs)


def _split(g: Grower, e: p.Op, want: Want) -> Term:
    count = g.outputs(e)
    known = g.known(e.operands[0])
    attrs = _counted(g.attributes(e, axis=_axes_of(want.shape), num_outputs=(None,)), len(want.shape))
    axis = attrs.get("axis", 0)
    whole = known or (*want.shape[:axis], dims.mul(want.shape[axis], count), *want.shape[axis + 1 :])
    if axis >= len(whole):
        raise Rejected
    part, rest = divmod(g.number(whole[axis]), count)
    if rest or not part:
        raise Rejected
    x = g.operand(e, 0, want._replace(shape=whole, exact=True))
    shape = (*whole[:axis], part, *whole[axis + 1 :])
    return Call(shape, want.dtype, e.op, e.domain, (x, Ints((count,), dtypes.INT64, (part,) * count)), attrs, 0, count)


# ---- any other operator ----------------------------------------------------------------------------------------------


def _other(g: Grower, e: p.Op, want: Want) -> Term:
    """Operands of the wanted shape, or of those that the author gives; the result is what inference says."""
    schema = onnx_schema(e.domain, e.op, max(g.opset, first_version(e.domain, e.op)))
    terms = []
    for at in range(len(e.operands)):
        types = schema.inputs[min(at, len(schema.inputs) - 1)].types if schema and schema.inputs else ()
        name = dtypes.NAMES[want.dtype]
        takes = not types or f"tensor({_SCHEMA_NAMES.get(name, name)})" in types
        terms.append(g.operand(e, at, want if takes else want._replace(dtype=dtypes.INT64)))
    return g.inferred(g.call(e, terms, want.shape, want.dtype, g.attributes(e)))


_SCHEMA_NAMES = {"float32": "float", "float64": "double"}
_OTHERS = OpRule(_other, _known)


# ---- the table -----------------------------------------------------------------------------------------------------

_PREDICATES = frozenset({"IsNaN", "IsInf", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
_LOGICAL = frozenset({"And", "Not", "Or", "Xor"})
_UNARY = (
    "Abs Celu Ceil Cos Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity LeakyRelu Log Mish Neg Not Reciprocal Relu"
    " Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Swish Tanh ThresholdedRelu Dropout"
)
_BINARY = "Add And Clip Div Max Mean Min Mul Or PRelu Pow Sub Sum Where Xor"
_REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"

_TABLE: dict[tuple[str, str], OpRule] = {
    **{("", op): OpRule(_elementwise, _known) for op in (*_UNARY.split(), *_BINARY.split(), *_PREDICATES)},
    **{(MICROSOFT, op): OpRule(_elementwise, _known) for op in ("Gelu", "QuickGelu")},
    **{(MICROSOFT, op): OpRule(_vector_beside, _known) for op in ("BiasGelu", "FastGelu")},
    **{("", f"Reduce{name}"): OpRule(_reduction, _known) for name in _REDUCTIONS.split()},
    **{("", op): OpRule(_along_axis, _known) for op in ("Softmax", "LogSoftmax", "Hardmax")},
    **{("", op): OpRule(_normalization, _known) for op in ("LayerNormalization", "RMSNormalization")},
    ("", "Cast"): OpRule(_cast, _known),
    **{("", op): OpRule(images.convolution, images.natural) for op in ("Conv", "ConvTranspose")},
    **{("", op): OpRule(images.pool, images.natural) for op in ("AveragePool", "MaxPool")},
    ("", "BatchNormalization"): OpRule(images.batch_norm, images.natural),
    ("", "GroupNormalization"): OpRule(images.group_norm, images.natural),
    ("", "Pad"): OpRule(images.pad, images.natural),
    ("", "Tile"): OpRule(images.tile, _known),
    ("", "MatMul"): OpRule(_matmul, _natural_matmul),
    (MICROSOFT, "FusedMatMul"): OpRule(_fused_matmul, _natural_matmul),
    ("", "Gemm"): OpRule(_gemm, _natural_gemm),
    ("", "Einsum"): OpRule(_einsum, lambda g, e: g.some_shape((3, 2, 4))),
    ("", "Transpose"): OpRule(_transpose, _natural_transpose),
    ("", "Reshape"): OpRule(_reshape, _known),
    ("", "Flatten"): OpRule(_flatten, lambda g, e: g.some_shape((2,))),
    ("", "Squeeze"): OpRule(_squeeze, lambda g, e: g.some_shape()),
    ("", "Unsqueeze"): OpRule(_unsqueeze, lambda g, e: g.some_shape()),
    ("", "Expand"): OpRule(_expand, _known),
    ("", "ConstantOfShape"): OpRule(_constant_of_shape, lambda g, e: g.some_shape()),
    ("", "Slice"): OpRule(_slice, _known),
    ("", "Concat"): OpRule(_concat, _known),
    ("", "Split"): OpRule(_split, _known),
    ("", "Attention"): OpRule(attentions.standard, attentions.natural),
    (MICROSOFT, "Attention"): OpRule(attentions.packed, attentions.natural),
    (MICROSOFT, "EmbedLayerNormalization"): OpRule(attentions.embeddings, lambda g, e: g.some_shape((3,))),
    (MICROSOFT, "MultiHeadAttention"): OpRule(attentions.multi_head, attentions.natural),
    (MICROSOFT, "FusedConv"): OpRule(images.convolution, images.natural),
    (MICROSOFT, "FusedGemm"): OpRule(_gemm, _natural_gemm),
    ("", "SimplifiedLayerNormalization"): OpRule(_normalization, _known),
    **{
        (MICROSOFT, f"Skip{kind}LayerNormalization"): OpRule(_skip_norm, lambda g, e: g.some_shape((3, 2)))
        for kind in ("", "Simplified")
    },
    ("", "RotaryEmbedding"): OpRule(rotations.rotary, rotations.natural),
    (IR_DOMAIN, "Attention"): OpRule(_attention, lambda g, e: g.some_shape((4,))),
}
