"""Reads the text form; its grammar is in `graphopt.ir.text`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx

from graphopt.errors import near
from graphopt.ir import attributes, dims, dtypes
from graphopt.ir.attributes import Reference
from graphopt.ir.dims import Shape, Size
from graphopt.ir.graph import Graph
from graphopt.ir.model import Function, FunctionKey, Model, canonical_domain
from graphopt.ir.node import IR_DOMAIN, Node, Value
from graphopt.ir.schema import first_version, onnx_schema
from graphopt.ir.tensor import Tensor
from graphopt.ir.text.constants import filled, listed, seeded, unknown
from graphopt.ir.text.tokens import Scalar, Token, Tokens
from graphopt.ir.text.writer import WORDS

Declared = tuple[int, Shape | None]


def parse(text: str, *, opset: int = 20, where: str = "text", line: int = 1) -> Model:
    """The model that `text` says; `opset` is the standard domain's where the text has no opset line.

    Types of inner values are not inferred. Errors call the text `where` and its first line `line`.
    Raises: ModelError GO046 with line, column and what stands there.
    """
    parser = _Parser(text, opset, where, line)
    try:
        return parser.read()
    except RecursionError:
        raise parser.wrong("less nesting") from None


class _Parser(Tokens):
    """Builds the graph while it reads."""

    def __init__(self, text: str, opset: int, where: str, line: int) -> None:
        super().__init__(text, where, line)
        opsets = self.opsets(opset)
        self.model = Model.empty(opsets[""])
        self.model.opsets.update(opsets)
        self.ledger = self.model.ledger
        # Values without a name of their own must not take one that comes later.
        self.ledger.names.update(token.text for token in self.tokens if token.kind == "name")

    # ---- scopes ------------------------------------------------------------------------------------------------

    def opsets(self, opset: int) -> dict[str, int]:
        opsets = {"": opset}
        if self.accept("opset"):
            opsets[""] = self.integer()
            while self.accept(","):
                domain = canonical_domain(self.name("a domain")[0])
                opsets[domain] = self.integer()
        return opsets

    def read(self) -> Model:
        model = self.model
        self.scope(model.graph)
        while self.accept("function"):
            self.function()
        if self.token.kind != "end":
            raise self.wrong("the end")
        used = {node.domain for graph in model.scopes() for node in graph.ops()} - {IR_DOMAIN}
        model.opsets.update({domain: 1 for domain in sorted(used) if domain not in model.opsets})
        return model

    def function(self) -> None:
        domain, op, overload = key = self.operator()
        graph = Graph(self.ledger)
        graph.opsets = self.model.opsets
        proto = onnx.FunctionProto(domain=domain, name=op, overload=overload)
        proto.opset_import.extend(onnx.helper.make_opsetid(*entry) for entry in self.model.opsets.items())
        self.scope(graph, proto)
        proto.input.extend(node.output.name for node in graph.inputs)
        proto.output.extend(value.name for value in graph.outputs)
        self.model.functions[key] = Function(proto, graph)

    def scope(self, graph: Graph, function: onnx.FunctionProto | None = None) -> None:
        self.expect("(")
        self.several(")", lambda: self.param(graph, function))
        self.expect("->")
        self.expect("(")
        results = self.several(")", lambda: (*self.name(), self.annotation()))
        self.expect("{")
        while not self.accept("}"):
            self.statement(graph)
        for name, token, (dtype, shape) in results:
            value = self.lookup(graph, name, token)
            if dtype:
                value.dtype, value.shape = dtype, shape
            graph.add_slot(graph.output, value)

    def param(self, graph: Graph, function: onnx.FunctionProto | None) -> None:
        name = self.new_name(graph)
        if not self.accept("="):
            graph.add_input(name, *self.annotation())
        elif function is None:
            default = self.tensor()
            graph.add_input(name, default.dtype, default.shape, default)
        elif self.accept("@"):
            function.attribute.append(name)
        else:
            function.attribute_proto.append(attributes.encode(name, self.literal()))

    def annotation(self) -> Declared:
        return self.type() if self.accept(":") else (0, None)

    def new_name(self, graph: Graph) -> str:
        """The name of a value that is defined here."""
        name, token = self.name()
        if token.text in WORDS:
            raise self.error(f"'{name}' is a word of the language", token, f"as a name, write `{name}`")
        if any(name in scope.names for scope in _enclosing(graph)):
            raise self.error(f"'{name}' is defined twice", token)
        return name

    def lookup(self, graph: Graph, name: str, token: Token) -> Value:
        for scope in _enclosing(graph):
            if name in scope.names:
                return scope.names[name] if scope is graph else graph.capture(scope.names[name])
        known = [known for scope in _enclosing(graph) for known in scope.names]
        raise self.error(f"nothing defines '{name}' before this", token, near(name, known))

    # ---- statements --------------------------------------------------------------------------------------------

    def statement(self, graph: Graph) -> None:
        start = self.token
        targets = self.several("=", lambda: self.target(graph))
        names = [name for name, _ in targets]
        if twice := [name for name in names if name and names.count(name) > 1]:
            raise self.error(f"'{twice[0]}' is defined twice", start)
        if self.ahead("(", ":", by=1):
            node = self.call(graph, names)
            for value, (_, (dtype, shape)) in zip(node.outputs, targets, strict=True):
                value.dtype, value.shape = dtype, shape
        elif len(names) == 1 and names[0] and not targets[0][1][0]:
            self.constant(graph, names[0])
        else:
            raise self.wrong("an operation")

    def target(self, graph: Graph) -> tuple[str, Declared]:
        return ("", (0, None)) if self.accept("_") else (self.new_name(graph), self.annotation())

    def constant(self, graph: Graph, name: str) -> Value:
        tensor = self.tensor()
        node = graph.add_source("Constant", name)
        node.data = tensor
        node.output.dtype, node.output.shape = tensor.dtype, tensor.shape
        return node.output

    def operator(self) -> FunctionKey:
        domain, _, op = self.name("an operation")[0].rpartition(".")
        return canonical_domain(domain), op, self.name("an overload")[0] if self.accept(":") else ""

    def call(self, graph: Graph, names: list[str] | None = None) -> Node:
        """One operation; its outputs are called `names`, by default there is one, called what is free."""
        domain, op, overload = self.operator()
        version = graph.opsets.get(domain, 1)
        # As when a rule writes an operator that only a newer opset has.
        node = Node(graph, op, domain, version if domain else max(version, first_version(domain, op)))
        node.overload = overload
        self.expect("(")
        inputs: list[Value | None] = []
        done = self.accept(")")
        while not done and not self.ahead("=", by=1):
            inputs.append(self.operand(graph))
            done = self.closed(")")
        graph.append(node)
        node.inputs = [None] * len(inputs)
        node.arity = len(inputs)
        for slot, value in enumerate(inputs):
            if value is not None:
                graph.join(node, slot, value)
        edits: dict[str, Any] = {}
        while not done:
            self.attribute(node, edits)
            done = self.closed(")")
        node.edits = edits
        names = [self.ledger.fresh(op.lower())] if names is None else names
        node.outputs = tuple(Value(node, index, name) for index, name in enumerate(names))
        graph.register(node)
        return node

    def operand(self, graph: Graph) -> Value | None:
        if self.accept("_"):
            return None
        if self.ahead("(", ":", by=1):
            return self.call(graph).output
        if self.token.kind == "quoted" or (self.token.kind == "name" and self.token.text not in WORDS):
            return self.lookup(graph, *self.name())
        if self.token.kind in ("number", "string") or self.ahead("[", "true", "false", *dtypes.NUMBERS):
            return self.constant(graph, self.ledger.fresh("constant"))
        raise self.wrong("an operand")

    def attribute(self, node: Node, edits: dict[str, Any]) -> None:
        """`key = value`, into `edits`, or into the node if it is a subgraph."""
        key, token = self.name("an attribute")
        self.expect("=")
        if key in edits or key in (node.graphs or {}):
            raise self.error(f"'{key}' is given twice", token)
        if self.ahead("("):
            graph = Graph(self.ledger, node)
            self.scope(graph)
            node.graphs = {**(node.graphs or {}), key: [graph]}
        elif self.accept("@"):
            schema = onnx_schema(node.domain, node.op, node.version)
            known = schema.attributes.get(key) if schema else None
            edits[key] = Reference(self.name()[0], known.type if known else 0)  # type: ignore[arg-type]
        elif self.ahead(*dtypes.NUMBERS):
            is_number = self.ahead(",", ")", by=1)
            edits[key] = dtypes.NUMBERS[self.take("name", "a type").text] if is_number else self.tensor()
        else:
            edits[key] = self.literal()

    # ---- types and constants -----------------------------------------------------------------------------------

    def type(self) -> Declared:
        name = "?" if self.accept("?") else self.take("name", "a type").text
        if name != "?" and name not in dtypes.NUMBERS:
            raise self.error(
                f"no element type is called '{name}'", self.tokens[self.at - 1], near(name, dtypes.NUMBERS)
            )
        shape = tuple(self.several("]", self.dim)) if self.accept("[") else None
        return dtypes.NUMBERS.get(name, 0), shape

    def dim(self) -> Size:
        text = self.raw(",", "]")
        if not text:
            raise self.wrong("a dimension")
        return self.ledger.unknowns.fresh() if text == "?" else dims.parse(text)

    def tensor(self) -> Tensor:
        start = self.token
        try:
            return self.content() if self.ahead(*dtypes.NUMBERS) else _tensor_of(self.literal())
        except ValueError as error:
            raise self.error(str(error), start) from error

    def content(self) -> Tensor:
        """A constant that begins with its type. Raises: ValueError when the type does not go with the elements."""
        dtype, shape = self.type()
        sizes = tuple(size for size in shape or () if isinstance(size, int))
        if len(sizes) < len(shape or ()):
            raise ValueError("the dimensions of a constant are numbers")
        if self.accept("{"):
            return listed(dtype, sizes, self.several("}", self.scalar))
        if self.ahead("random", "data"):
            made = self.take("name", "random").text
            self.expect("(")
            inside = self.raw(")")
            self.expect(")")
            if made == "data":
                return unknown(dtype, sizes, inside)
            if not inside.isdecimal():
                raise ValueError("the seed of random() is a number")
            return seeded(dtype, sizes, int(inside))
        return filled(dtype, sizes, self.scalar())


def _tensor_of(literal: Scalar | list[Scalar]) -> Tensor:
    elements = literal if isinstance(literal, list) else [literal]
    kinds = {str: dtypes.STRING, bool: dtypes.BOOL, float: dtypes.FLOAT, int: dtypes.INT64}
    dtype = kinds[type(elements[0])] if elements else dtypes.INT64
    return listed(dtype, (len(elements),) if isinstance(literal, list) else (), elements)


def _enclosing(graph: Graph) -> Iterator[Graph]:
    """`graph` and the scopes around it, from inside out."""
    scope: Graph | None = graph
    while scope is not None:
        yield scope
        scope = scope.holder.graph if scope.holder is not None else None
