"""Half precision: weights and activations as float16, and in float32 what float16 does not hold.

The model is taken after stage `fuse`, when attention and norms are one operation each, and lowered afterwards, so that
each is written in the kernel that the target has for halves. What stays in float32: operations on values that overflow
(as constants tell, formulas, and what was observed), on values that vanish, such as the 1e-12 that somebody adds to
divide by it; sums of many numbers; angles; what is made of integers alone; what runs in subgraphs' carried values; what
has no half precision. A Cast stands at each border, one for each value.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from graphopt.ir import Model, Node, Value, dtypes
from graphopt.ir.infer import infer
from graphopt.passes import remove_dead
from graphopt.quantize.half.choice import LIMIT, MASK_SLOT, READS_ANY, Choice, Kind, choose, mask_of
from graphopt.quantize.half.masks import Masks
from graphopt.quantize.half.reach import MOVERS, Reach
from graphopt.quantize.half.types import Types, declare_half, give_name

_WEIGHTS = 1024
"""Constants of as many elements are weights: halves in the file, even where they are multiplied in float32."""
_CAST_SINCE = 13
"""The version of Cast for models that have no standard operator."""
_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum"})


@dataclass(frozen=True)
class Kept:
    """An operation that stays in float32, and why."""

    name: str
    op: str
    kind: Kind
    reason: str


@dataclass(frozen=True)
class HalfReport:
    """What became half: so many operations of so many that compute with floats; Casts at borders; bytes of constants
    before and after; how many weights are too small for half precision, and are 0 now. `kept` is the rest."""

    converted: int
    kept: tuple[Kept, ...]
    casts: int
    bytes_before: int
    bytes_after: int
    vanished: int

    @property
    def overflowing(self) -> tuple[Kept, ...]:
        """What is in float32 because half precision would lose its numbers."""
        return tuple(one for one in self.kept if one.kind in ("large", "small"))


def to_half(
    model: Model,
    *,
    keep: Collection[str] = frozenset(),
    ranges: Mapping[str, float] | None = None,
    keep_io: bool = True,
    limit: float = LIMIT,
    no_empty_rows: bool = False,
) -> HalfReport:
    """Makes float32 values of `model` half in place, wherever half precision holds them.

    `keep` are operations that stay in float32, by their names or those of their results. `ranges` are the largest |x|
    that values took, by name (see `needed`); what reaches more than `limit`, or was NaN, stays in float32, and without
    a range a value is taken to fit. Graph inputs and outputs keep their types, each behind one Cast, with `keep_io`.
    `no_empty_rows` promises that no row of an attention is masked throughout.
    """
    infer(model)
    before = _constant_bytes(model)
    casts = _count_casts(model)
    choice = choose(model, Reach(ranges or {}), keep, limit)
    types = Types(model)
    model.graph.import_domain("", _CAST_SINCE)
    _convert(model, choice, types, Masks(types, choice.reach, no_empty_rows), keep_io)
    infer(model)
    remove_dead(model)
    return HalfReport(
        converted=len(choice.half),
        kept=tuple(Kept(n.label, n.op, r.kind, r.text) for n, r in choice.single.items() if r.kind != "count"),
        casts=_count_casts(model) - casts,
        bytes_before=before,
        bytes_after=_constant_bytes(model),
        vanished=sum(fit.vanished for value, fit in choice.reach.fits.items() if types.has_half(value)),
    )


def needed(model: Model) -> list[Value]:
    """The values of the main graph whose largest |x| `to_half` has to be told, since nothing bounds them."""
    infer(model)
    reach = Reach({})
    choice = choose(model, reach, (), LIMIT)
    found = [node.output for node in model.graph.inputs if node.op == "Input" and node.output.dtype == dtypes.FLOAT]
    for node in model.graph.ops():
        known = node in choice.half or (node in choice.single and choice.single[node].kind in ("large", "small", "sum"))
        if not known or (not node.domain and node.op in MOVERS):
            continue
        for value in node.outputs:
            bounded = reach.peak(value) is not None and (reach.peak(value) or 0.0) <= LIMIT
            if value.dtype == dtypes.FLOAT and value.uses and not bounded and value not in reach.counted:
                found.append(value)
    return found


def _convert(model: Model, choice: Choice, types: Types, masks: Masks, keep_io: bool) -> None:
    if not keep_io:
        _convert_inputs(model, types)
    for graph in model.graph.scopes():
        for node in list(graph.ops()):
            if node in choice.half:
                _make_half(node, choice, types, masks)
            elif node.domain or node.op not in READS_ANY:
                _keep_single(node, choice, types)
        whole = keep_io or graph is not model.graph
        for slot, value in enumerate(graph.outputs):
            graph.set_input(graph.output, slot, types.single(value) if whole else _half_output(value, types))


def _convert_inputs(model: Model, types: Types) -> None:
    for node in model.graph.inputs:
        if node.op == "Input" and node.data is None and node.output.dtype == dtypes.FLOAT:
            types.convert(node.output, rename=False)
            declare_half(node.output)


def _make_half(node: Node, choice: Choice, types: Types, masks: Masks) -> None:
    """Lets `node` read and make halves."""
    graph, slots = node.graph, choice.half[node]
    mask = mask_of(node)
    for slot in slots.inputs:
        value = node.inputs[slot]
        assert value is not None
        if value is not mask or slot != MASK_SLOT:
            graph.set_input(node, slot, types.half(value))
    if mask is not None:
        masks.settle(node, mask)
    # What the schema holds to float32 may have become half before.
    for slot in range(node.arity):
        value = node.inputs[slot]
        if slot not in slots.inputs and value is not None:
            graph.set_input(node, slot, types.single(value))
    for index in slots.outputs:
        types.convert(node.outputs[index])


def _keep_single(node: Node, choice: Choice, types: Types) -> None:
    """Lets `node` read float32; large weights that overflow nothing themselves are halves in the file all the same."""
    reason = choice.single.get(node)
    shrinks = reason is not None and reason.kind == "large" and node.op in _PRODUCTS and not node.domain
    for slot in range(node.arity):
        value = node.inputs[slot]
        if value is None:
            continue
        fit = choice.reach.fit(value) if shrinks and value.dtype == dtypes.FLOAT else None
        tensor = value.resolved.tensor
        stored = fit is not None and not fit.reason and tensor is not None and tensor.size >= _WEIGHTS
        node.graph.set_input(node, slot, types.stored_half(value) if stored else types.single(value))


def _half_output(value: Value, types: Types) -> Value:
    """The half form of a graph output, with the name of the output."""
    if value.dtype not in (dtypes.FLOAT, dtypes.FLOAT16):
        return value
    name, half = types.names.get(value, value.name), types.half(value)
    graph = half.node.graph
    if half.name != name:
        if name in graph.names:
            graph.rename(graph.names[name], graph.ledger.fresh(f"{name}_single"))
        give_name(half, name)
    if value.dtype != dtypes.FLOAT16 or half is not value or value in types.names:
        half.info = value.info
        declare_half(half)
    return half


def _constant_bytes(model: Model) -> int:
    return sum(
        node.data.nbytes
        for graph in model.graph.scopes()
        for node in graph.sources("Constant")
        if node.data is not None
    )


def _count_casts(model: Model) -> int:
    return sum(1 for graph in model.graph.scopes() for node in graph.ops() if node.is_op("Cast"))
