"""Raising the standard opset of a model.

Most operators only gain attributes and operands whose absence means what it always meant. `CHANGES` lists the others,
each with what a node in the older form needs; a node that cannot be carried over is a reason not to raise. Adapters
are our own because `onnx.version_converter` drops functions and stops on gaps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import onnx

from graphopt.errors import ModelError
from graphopt.ir import dtypes, operands
from graphopt.ir.attributes import Reference
from graphopt.ir.graph import Graph
from graphopt.ir.inference import sizes
from graphopt.ir.model import Model
from graphopt.ir.node import IR_DOMAIN, Node, Value

OLDEST: Final = 11
NEWEST: Final = 26


def can_raise(model: Model, version: int) -> str | None:
    """Why the standard opset of `model` cannot be raised to `version`; None where it can."""
    if version > NEWEST:
        return f"opset {version} is newer than {NEWEST}, the newest that is handled"
    for graph in model.scopes():
        if graph.opsets.get("", OLDEST) < min(OLDEST, version):
            # What is written here from now on is as old.
            return f"opset {graph.opsets['']} is older than {OLDEST}, the oldest that is handled"
        for node in graph.ops():
            reason = _refusal(node, version)
            if reason is not None:
                name = node.name or next((value.name for value in node.outputs), "")
                return f"node '{name}' ({node.op}): {reason}"
    return None


def raise_opset(model: Model, version: int) -> None:
    """Rewrites `model`, its subgraphs and its function bodies in the standard opset `version`.

    Nodes that are already written in a newer opset stay, and so does a model that is. The IR version becomes the
    lowest that carries the opset, unless it is higher. Raises: ModelError GO047 where `can_raise` has a reason.
    """
    if model.opset >= version:
        return
    reason = can_raise(model, version)
    if reason is not None:
        raise ModelError("GO047", f"opset {model.opset} cannot be raised to {version}", reason)
    raise_ir_version(model, onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", version)]))
    for opsets in [model.opsets, *(function.graph.opsets for function in model.functions.values())]:
        _raise_import(model, opsets, version)
    for graph in list(model.scopes()):
        for node in graph.ops():
            if not node.domain and node.version < version:
                _raise_node(node, version)


def _raise_node(node: Node, version: int) -> None:
    for since, change in CHANGES.get(node.op, ()):
        if node.version < since <= version:
            change.adapt(node)
    node.graph.set_op(node, node.op, node.domain, version)


def _refusal(node: Node, version: int) -> str | None:
    if node.domain or node.version >= version:
        return None
    if version >= 22 and node.op in WITHOUT_KERNEL_22:
        return f"onnxruntime has no kernel for {node.op}-22"
    for since, change in CHANGES.get(node.op, ()):
        if node.version < since <= version:
            reason = _refers(node, change) or change.refuse(node)
            if reason is not None:
                return reason
    return None


def _refers(node: Node, change: Change) -> str | None:
    given = [name for name in change.attributes if isinstance(node.attrs.get(name), Reference)]
    return f"the caller of the function gives '{given[0]}'" if given else None


def _raise_import(model: Model, opsets: Mapping[str, int], version: int) -> None:
    assert isinstance(opsets, dict)
    old = opsets.get("")
    if old is None:
        opsets[""] = version
        model.ledger.log(opsets.__delitem__, "")
    elif old < version:
        opsets[""] = version
        model.ledger.log(opsets.__setitem__, "", old)


def raise_ir_version(model: Model, version: int) -> None:
    """Raises the IR version to `version`, unless it is that or higher; initializers are then no longer inputs."""
    old = model.proto.ir_version
    if old < 4 <= version:
        _unlist_constants(model.graph)
    model.proto.ir_version = max(old, version)
    model.ledger.log(setattr, model.proto, "ir_version", old)


def _unlist_constants(graph: Graph) -> None:
    """Takes initializers out of the graph's inputs, where from IR 4 on a caller could override them."""
    for index, node in reversed(list(enumerate(graph.inputs))):
        if node.is_op("Constant", IR_DOMAIN):
            graph.inputs.pop(index)
            graph.ledger.log(graph.inputs.insert, index, node)


# ---- adapters: a node in the form before becomes one in the form after ----------------------------------------------


def _operand(node: Node, data: Any, stem: str, dtype: int = dtypes.INT64) -> None:
    node.graph.add_operand(node, node.graph.add_constant(data, f"{node.op.lower()}_{stem}", dtype))


def _attribute_to_operand(name: str, required: bool = False) -> Callable[[Node], None]:
    def adapt(node: Node) -> None:
        written = node.attrs.get(name)
        node.graph.set_attr(node, name, None)
        if written or required:
            _operand(node, written or [], name)

    return adapt


def _ratio_to_operand(node: Node) -> None:
    ratio = node.attrs.get("ratio")
    node.graph.set_attr(node, "ratio", None)
    if ratio is not None:
        _operand(node, ratio, "ratio", dtypes.FLOAT)


def _axis_to_operand(node: Node) -> None:
    axis = node.attr("axis")
    node.graph.set_attr(node, "axis", None)
    if node.arity == 1:
        node.graph.add_operand(node, None)
    _operand(node, axis, "axis")


def _count_outputs(node: Node) -> None:
    if node.input(1) is None:
        node.graph.set_attr(node, "num_outputs", len(node.outputs))


def _set_default(name: str, value: Any) -> Callable[[Node], None]:
    """Writes down what leaving out the attribute `name` used to mean."""

    def adapt(node: Node) -> None:
        if node.attrs.get(name) is None:
            node.graph.set_attr(node, name, value)

    return adapt


def _rename_mode(node: Node) -> None:
    mode = node.attr("mode")
    node.graph.set_attr(node, "mode", {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode))


def _softmax_along_one_axis(node: Node) -> None:
    """Softmax over the last axis, or, as it was meant before 13, over all axes from `axis` on as one:

    y = Reshape(Softmax(Flatten(x, axis), axis=-1), Shape(x))
    """
    graph, x, y = node.graph, node.inputs[0], node.output
    assert x is not None
    axis = node.attr("axis")
    graph.set_attr(node, "axis", -1)
    if axis == -1 or (x.rank is not None and operands.normalized(axis, x.rank) == x.rank - 1):
        return
    flat = graph.add_op("Flatten", [x], {"axis": axis}, before=node).output
    shape = graph.add_op("Shape", [x], before=node).output
    if x.shape is not None:
        split = axis + len(x.shape) if axis < 0 else axis
        merged = [sizes.product(part) for part in (x.shape[:split], x.shape[split:])]
        unknown = graph.ledger.unknowns.fresh
        graph.set_type(flat, x.dtype, tuple(unknown() if size is None else size for size in merged))
        graph.set_type(shape, dtypes.INT64, (len(x.shape),))
    graph.set_input(node, 0, flat)
    shaped = graph.add_op("Reshape", [y, shape], before=node.next).output
    graph.set_type(shaped, y.dtype, y.shape)
    graph.replace(y, shaped, take_name=True)
    graph.set_type(y, y.dtype, flat.shape)


def _scale_per_channel(node: Node) -> None:
    """GroupNormalization's scale and bias, one number per group before 21, become one per channel."""
    graph, x = node.graph, node.inputs[0]
    assert x is not None
    assert x.shape is not None
    channels, groups = x.shape[1], node.attr("num_groups")
    assert isinstance(channels, int)
    target = graph.add_constant([groups, channels // groups], "groups", dtypes.INT64)
    column = graph.add_constant([groups, 1], "column", dtypes.INT64)
    flat = graph.add_constant([channels], "channels", dtypes.INT64)
    for slot in (1, 2):
        value: Value | None = node.inputs[slot]
        for op, shape in (("Reshape", column), ("Expand", target), ("Reshape", flat)):
            value = graph.add_op(op, [value, shape], before=node).output
        graph.set_input(node, slot, value)


# ---- refusals ------------------------------------------------------------------------------------------------------


def _reads_mask(node: Node) -> str | None:
    read = len(node.outputs) > 1 and node.outputs[1].uses > 0
    return "its mask is used, which was all false and is all true from opset 12 on" if read else None


def _trains(node: Node) -> str | None:
    named = any(value.name for value in node.outputs[1:])
    return "it has training outputs, whose meaning changed in opset 14" if named else None


def _resizes_like_tensorflow(node: Node) -> str | None:
    mode = node.attr("coordinate_transformation_mode")
    return f"opset 13 has no coordinate_transformation_mode '{mode}'" if mode == "tf_half_pixel_for_nn" else None


def _channels_unknown(node: Node) -> str | None:
    x, groups = node.input(0), node.attrs.get("num_groups")
    known = x is not None and x.shape is not None and len(x.shape) > 1 and isinstance(x.shape[1], int)
    return None if known and isinstance(groups, int) else "the number of channels is not known"


def _nothing(node: Node) -> None:
    """Only where the older form cannot be carried over does it matter."""


def _never(node: Node) -> str | None:
    return None


@dataclass(frozen=True)
class Change:
    """What a new form of an operator asks of nodes in the form before.

    `refuse` says why a node cannot be carried over; `attributes` are those that must be known to do so.
    """

    adapt: Callable[[Node], None] = _nothing
    attributes: tuple[str, ...] = ()
    refuse: Callable[[Node], str | None] = _never


_AXES = Change(_attribute_to_operand("axes"), ("axes",))
_LAST_AXIS = Change(_softmax_along_one_axis, ("axis",))
_REDUCTIONS: Final = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

CHANGES: Final[Mapping[str, tuple[tuple[int, Change], ...]]] = {
    "BatchNormalization": ((14, Change(refuse=_trains)),),
    "DFT": ((20, Change(_axis_to_operand, ("axis",))),),
    "Dropout": ((12, Change(_ratio_to_operand, ("ratio",), _reads_mask)),),
    "GridSample": ((20, Change(_rename_mode, ("mode",))),),
    "GroupNormalization": ((21, Change(_scale_per_channel, ("num_groups",), _channels_unknown)),),
    "Hardmax": ((13, _LAST_AXIS),),
    "LogSoftmax": ((13, _LAST_AXIS),),
    **{f"Reduce{name}": ((18, _AXES),) for name in _REDUCTIONS},
    "ReduceSum": ((13, _AXES),),
    "Resize": ((13, Change(_nothing, ("coordinate_transformation_mode",), _resizes_like_tensorflow)),),
    "RoiAlign": ((16, Change(_set_default("coordinate_transformation_mode", "output_half_pixel"))),),
    "Softmax": ((13, _LAST_AXIS),),
    "Split": ((13, Change(_attribute_to_operand("split"), ("split",))), (18, Change(_count_outputs))),
    "Squeeze": ((13, _AXES),),
    "Unsqueeze": ((13, Change(_attribute_to_operand("axes", required=True), ("axes",))),),
}
"""By operator: the opset versions whose form differs in more than optional additions, and what they ask."""

WITHOUT_KERNEL_22: Final = frozenset(
    {
        "Bernoulli",
        "GlobalLpPool",
        "MaxRoiPool",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "RoiAlign",
    }
)
"""Operators that opset 22 wrote again (for bfloat16) and onnxruntime 1.31 runs in their older forms only."""
