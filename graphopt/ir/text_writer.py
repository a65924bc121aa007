"""Writes the text form; its grammar is in `graphopt.ir.text`."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from graphopt.ir import dtypes
from graphopt.ir.attributes import Reference
from graphopt.ir.graph import Graph
from graphopt.ir.model import Model
from graphopt.ir.node import IR_DOMAIN, Node, Value
from graphopt.ir.schema import attribute_default
from graphopt.ir.tensor import Tensor
from graphopt.ir.text_constants import is_short, tensor_text, type_text

NAME = r"[A-Za-z_/][\w./]*"
WORDS = frozenset({*dtypes.NUMBERS, "true", "false", "inf", "nan", "_"})
"""Names that must be quoted."""


def to_text(graph: Model | Graph, *, names: bool = True, types: bool = False) -> str:
    """The text form of a model or of one scope of it.

    Constants of at most 8 elements, or of one value, stand where they are used, whatever node or initializer holds
    them; of larger ones that `random(seed)` did not make only a digest is written. What else is left out: names of
    nodes, and documentation. With `types`, what is known of inner values is written as well.

    `names=False` is the form in which graphs are compared: it is equal for graphs that differ only in the names of
    values (those of the main graph's inputs and outputs count), the order of operations, the spelling of constants,
    attributes that have their default, types of inner values and outputs, and imports of domains that no node uses.
    """
    model = graph if isinstance(graph, Model) else None
    main = model.graph if model else graph
    assert isinstance(main, Graph)
    writer = _Writer(names, types)
    text = writer.scope(main)
    if main.holder is None:
        used = {node.domain for scope in main.scopes() for node in scope.ops()}
        others = (f"{d} {v}" for d, v in sorted(main.opsets.items()) if d and (names or d in used))
        text = ", ".join([f"opset {main.opsets.get('', 1)}", *others]) + "\n" + text
    for (domain, op, _), function in sorted(model.functions.items()) if model else ():
        required = [f"{name} = @" for name in function.proto.attribute]
        optional = [f"{a.name} = {_attribute(decode_one(a))}" for a in function.proto.attribute_proto]
        text += f"\nfunction {_quoted(f'{domain}.{op}')} {writer.scope(function.graph, more=[*required, *optional])}"
    return text + "\n"


class _Writer:
    def __init__(self, names: bool, types: bool) -> None:
        self.names = names
        self.types = types
        self.given: dict[Value, str] = {}

    def scope(self, graph: Graph, indent: str = "", more: Sequence[str] = ()) -> str:
        inputs = [node.output for node in graph.inputs]
        results = [_captured(value) for value in graph.outputs]
        if self.names or graph.holder is None:
            self.given.update((value, _quoted(value.name)) for value in [*inputs, *results])
        params = [*map(self.param, inputs), *more]
        lines = [self.constant(node.output) for node in graph.sources("Constant") if node not in graph.inputs]
        lines += [self.statement(node, indent + "  ") for node in (graph.ops() if self.names else _by_structure(graph))]
        body = "".join(f"{indent}  {line}\n" for line in lines if line)
        return f"({', '.join(params)}) -> ({', '.join(map(self.result, results))}) {{\n{body}{indent}}}"
