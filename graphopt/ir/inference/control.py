"""If, Loop and Scan: what flows into their subgraphs and what comes out."""

from __future__ import annotations

from graphopt.ir import dtypes
from graphopt.ir.dims import Shape
from graphopt.ir.graph import Graph
from graphopt.ir.inference.outs import Out, Outs, Table
from graphopt.ir.inference.sizes import Part, Partial, agree
from graphopt.ir.node import Node, Value
from graphopt.ir.operands import known_content


def seed(graph: Graph) -> None:
    """Gives the captures and inputs of a subgraph what is known of them outside."""
    holder = graph.holder
    assert holder is not None
    for slot, capture in graph.captures.items():
        outer = holder.inputs[slot]
        if outer is not None:
            graph.set_content(capture.output, known_content(outer))
            graph.set_type(capture.output, outer.dtype, outer.shape)
    if holder.is_op("Loop"):
        _seed_loop(graph, holder)
    elif holder.is_op("Scan"):
        _seed_scan(graph, holder)


def _seed_loop(graph: Graph, holder: Node) -> None:
    """The iteration number, the condition, and the carried values: their shapes may change from turn to turn."""
    for slot, node in enumerate(graph.inputs):
        value = node.output
        if slot < 2:
            graph.set_type(value, value.dtype or (dtypes.INT64, dtypes.BOOL)[slot], value.shape)
        else:
            outer = holder.input(slot)
            graph.set_type(value, value.dtype or (outer.dtype if outer is not None else 0), value.shape)


def _seed_scan(graph: Graph, holder: Node) -> None:
    scanned: int = holder.attr("num_scan_inputs", 0)
    states = len(graph.inputs) - scanned
    along = holder.attr("scan_input_axes") or [0] * scanned
    if holder.version < 9:
        return
    for slot, node in enumerate(graph.inputs):
        outer = holder.input(slot)
        if outer is None:
            continue
        shape = outer.shape if slot < states else _without(outer.shape, along[slot - states])
        graph.set_type(node.output, outer.dtype or node.output.dtype, shape or node.output.shape)


def _without(shape: Shape | None, position: int) -> Shape | None:
    if shape is None:
        return None
    position %= len(shape)
    return shape[:position] + shape[position + 1 :]


def if_(node: Node) -> Outs:
    """What both branches agree on. A name that both know is one of this scope or of one around it."""
    branches = [graph.output.inputs for graph in node.subgraphs]
    return [_common([value for value in values if value is not None]) for values in zip(*branches, strict=True)]


def _common(values: list[Value]) -> Out:
    first, *others = values
    dtype = first.dtype if all(value.dtype == first.dtype for value in others) else 0
    content = known_content(first)
    content = content if all(known_content(value) == content for value in others) else None
    shape: Partial | None = first.shape
    for value in others:
        if shape is None or value.shape is None or len(shape) != len(value.shape):
            return Out(dtype, None, content)
        shape = tuple(a if a == b else None for a, b in zip(shape, value.shape, strict=True))
    return Out(dtype, shape, content)


def loop(node: Node) -> Outs:
    """Carried values keep their type; of the shapes of what is collected only numbers hold for all turns."""
    (body,) = node.subgraphs
    carried = node.arity - 2
    outs = []
    for slot, value in enumerate(body.output.inputs[1:]):
        if value is None or slot < carried or value.shape is None:
            outs.append(Out(value.dtype if value is not None else 0))
        else:
            outs.append(Out(value.dtype, (None, *_numbers(value.shape))))
    return outs


def _numbers(shape: Shape) -> tuple[Part, ...]:
    return tuple(size if isinstance(size, int) else None for size in shape)


def scan(node: Node) -> Outs:
    """State variables keep their shapes; what is collected gains the axis that was scanned."""
    if node.version < 9:
        return []
    (body,) = node.subgraphs
    scanned: int = node.attr("num_scan_inputs", 0)
    states = node.arity - scanned
    axes_in = node.attr("scan_input_axes") or [0] * scanned
    axes_out = node.attr("scan_output_axes") or [0] * (len(node.outputs) - states)
    shapes = [value.shape if value is not None else None for value in node.inputs[states : node.arity]]
    turns = agree([shape[one] for shape, one in zip(shapes, axes_in, strict=True) if shape is not None])
    outs = []
    for slot, value in enumerate(body.output.inputs):
        outer = node.input(slot) if slot < states else None
        if value is None or value.shape is None:
            outs.append(Out(value.dtype if value is not None else 0))
        elif outer is not None:
            outs.append(Out(value.dtype, outer.shape))
        else:
            outs.append(Out(value.dtype, _with(_numbers(value.shape), axes_out[slot - states], turns)))
    return outs


def _with(shape: Partial, position: int, size: Part) -> Partial:
    position %= len(shape) + 1
    return (*shape[:position], size, *shape[position:])


TABLE: Table = {
    ("", "If"): if_,
    ("", "Loop"): loop,
    ("", "Scan"): scan,
}
