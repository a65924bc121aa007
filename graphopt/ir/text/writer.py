"""Writes the text form; its grammar is in `graphopt.ir.text`."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from graphopt.ir import dtypes
from graphopt.ir.attributes import Reference, decode_one
from graphopt.ir.graph import Graph
from graphopt.ir.model import Model
from graphopt.ir.node import IR_DOMAIN, Node, Value, qualified
from graphopt.ir.schema import attribute_default, first_version
from graphopt.ir.tensor import Tensor
from graphopt.ir.text.constants import LISTED, is_short, tensor_text, type_text, unknown

NAME = r"[A-Za-z_/][\w./]*"
WORDS = frozenset({*dtypes.NUMBERS, "true", "false", "inf", "nan", "_"})
"""Names that must be quoted."""
_DTYPES = ("dtype", "output_dtype", "softmax_dtype", "to")


def to_text(graph: Model | Graph, *, names: bool = True, types: bool = False, most: int = LISTED) -> str:
    """The text form of a model or of one scope of it.

    Constants of at most `most` elements, or of one value, stand where they are used, whatever node or initializer holds
    them; of larger ones that `random(seed)` did not make only a digest is written. What else is left out: names of
    nodes, and documentation. With `types`, what is known of inner values is written as well.

    `names=False` is the form in which graphs are compared: it is equal for graphs that differ only in the names of
    values (those of the main graph's inputs and outputs count), the order of operations, the spelling of constants,
    attributes that have their default, types of inner values and outputs, and imports of domains that no node uses.
    """
    model = graph if isinstance(graph, Model) else None
    main = model.graph if model else graph
    assert isinstance(main, Graph)
    writer = _Writer(names, types, most)
    text = writer.scope(main)
    if main.holder is None:
        used = {node.domain for scope in main.scopes() for node in scope.ops()}
        shown = sorted((used | main.opsets.keys() if names else used) - {"", IR_DOMAIN})
        opsets = [f"opset {main.opsets.get('', 1)}", *(f"{domain} {main.opsets.get(domain, 1)}" for domain in shown)]
        text = f"{', '.join(opsets)}\n{text}"
    for (domain, op, overload), function in sorted(model.functions.items()) if model else ():
        required = [f"{name}=@" for name in function.proto.attribute]
        optional = [f"{a.name}={attribute_text(decode_one(a))}" for a in function.proto.attribute_proto]
        name = _operator(f"{domain}.{op}", overload)
        text += f"\nfunction {name}{writer.scope(function.graph, more=[*required, *optional])}"
    return text + "\n"


class _Writer:
    """Writes scopes, and remembers what it called each value."""

    def __init__(self, names: bool, types: bool, most: int) -> None:
        self.names = names
        self.types = types
        self.most = most
        self.given: dict[Value, str] = {}
        self.taken: set[str] = set()
        self.numbers = itertools.count(1)
        self.inlined: dict[Value, str] = {}

    def scope(self, graph: Graph, indent: str = "", more: Sequence[str] = ()) -> str:
        if graph.holder is None:
            for value in (*(node.output for node in graph.inputs), *graph.outputs):
                self.give(value, _quoted(value.name))
        params = [self.param(node) for node in graph.inputs]
        order = list(graph.ops() if self.names else _by_structure(graph))
        stored = [node for node in graph.sources("Constant") if node not in graph.inputs]
        written = {node: None for node in order if node.is_op("Constant") and node.output.tensor is not None}
        lines = [self.constant(node.output) for node in (*stored, *written)]
        lines += [self.statement(node, indent + "  ") for node in order if node not in written]
        results = [self.name(v) + ("" if not self.names or v.dtype == 0 else self.type(v)) for v in graph.outputs]
        body = "".join(f"{indent}  {line}\n" for line in lines if line)
        return f"({', '.join([*params, *more])}) -> ({', '.join(results)}) {{\n{body}{indent}}}"

    def give(self, value: Value, name: str) -> None:
        self.given[value] = name
        self.taken.add(name)

    def name(self, value: Value) -> str:
        value = value.resolved
        if self.names:
            return _quoted(value.name)
        if value not in self.given:
            self.give(value, next(name for number in self.numbers if (name := f"v{number}") not in self.taken))
        return self.given[value]

    def type(self, value: Value) -> str:
        known = value.dtype != 0 or value.shape is not None
        return f": {type_text(value.dtype, value.shape)}" if known else ""

    def param(self, node: Node) -> str:
        name = self.name(node.output)
        return (
            f"{name} = {tensor_text(node.data, most=self.most)}"
            if node.data is not None
            else name + self.type(node.output)
        )

    def constant(self, value: Value) -> str:
        """The statement that defines a constant; empty for one that is written where it is used."""
        if self.inline(value):
            return ""
        # A sparse initializer has no tensor.
        return f"{self.name(value)} = {tensor_text(value.tensor or _sparse(value), most=self.most)}"

    def inline(self, value: Value) -> str:
        """The text of a constant that is written where it is used; empty for any other value."""
        if value not in self.inlined:
            tensor, graph = value.tensor, value.node.graph
            named = tensor is None or graph.is_output(value) or value.node in graph.inputs
            here = tensor is not None and not named and (not self.names or is_short(tensor, self.most))
            self.inlined[value] = tensor_text(tensor, most=self.most) if tensor is not None and here else ""
        return self.inlined[value]

    def operand(self, value: Value | None) -> str:
        return "_" if value is None else self.inline(value.resolved) or self.name(value)

    def statement(self, node: Node, indent: str) -> str:
        inputs = node.inputs[: node.arity]
        outputs = list(node.outputs)
        if not self.names:
            inputs = inputs[: max((i + 1 for i, value in enumerate(inputs) if value is not None), default=0)]
            outputs = outputs[: max((v.index + 1 for v in outputs if v.name), default=0)]
        arguments = [*map(self.operand, inputs), *self.attributes(node, indent)]
        targets = [self.name(v) + (self.type(v) if self.types else "") if v.name else "_" for v in outputs]
        op = _operator(qualified(node.domain, node.op), node.overload)
        return f"{', '.join(targets)} = {op}({', '.join(arguments)})"

    def attributes(self, node: Node, indent: str) -> Iterator[str]:
        graphs = node.graphs or {}
        for key in sorted({*node.attrs, *graphs}):
            if key in graphs:
                yield f"{key}={', '.join(self.scope(graph, indent) for graph in graphs[key])}"
                continue
            value = node.attrs[key]
            text = dtypes.NAMES.get(value, "") if key in _DTYPES and isinstance(value, int) else ""
            text = text or attribute_text(value)
            version = max(node.version, first_version(node.domain, node.op))
            default = None if self.names else attribute_default(node.domain, node.op, version, key)
            if default is None or text != attribute_text(default):
                yield f"{key}={text}"


def attribute_text(value: Any) -> str:
    """A literal, a typed constant, or `@name`; for protos, which have no text form, `<kind>`."""
    match value:
        case Tensor():
            return tensor_text(value, typed=True)
        case Reference():
            return f"@{value.name}"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case float():
            # The nearest float32 is what a file holds.
            return str(np.float32(value))
        case int():
            return str(int(value))
        case list() | tuple():
            return f"[{', '.join(map(attribute_text, value))}]"
    return f"<{type(value).__name__}>"


def _quoted(name: str) -> str:
    if re.fullmatch(NAME, name) and name not in WORDS:
        return name
    return "`" + json.dumps(name, ensure_ascii=False)[1:-1].replace("`", "\\u0060") + "`"


def _operator(name: str, overload: str) -> str:
    return _quoted(name) + (f":{_quoted(overload)}" if overload else "")


def _sparse(value: Value) -> Tensor:
    return unknown(value.dtype, tuple(size for size in value.shape or () if isinstance(size, int)))


def _by_structure(graph: Graph) -> list[Node]:
    """The operations, depth first from the outputs, then the dead: an order that the graph's own does not decide."""
    found: dict[Node, None] = {}
    stack = [*reversed(list(graph.ops())), *reversed(list(graph.output.producers()))]
    while stack:
        waiting = [p for p in stack[-1].producers() if not p.is_source and p not in found]
        if waiting:
            stack.extend(reversed(waiting))
        else:
            found.setdefault(stack.pop())
    return [node for node in found if not node.is_source]
