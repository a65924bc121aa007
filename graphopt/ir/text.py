"""The short text form of a model: `parse` reads it, `to_text` writes it.

    opset 20, com.microsoft 1
    (x: float32[B, S, 64], c: bool[]) -> (y, h: float32[B, S, 64]) {
      w = float32[64, 64] random(1)                   # seeded weights
      h = MatMul(x, w)
      e = Erf(Div(h, 1.4142135))                      # calls nest
      s, t = Split(h, axis=-1, num_outputs=2)
      g = com.microsoft.BiasGelu(h, float32[64] random(2))
      r = Clip(h, _, 6.0)                             # _ is an empty slot
      y = If(c, then_branch=() -> (p) { p = Neg(h) }, else_branch=() -> (q) { q = Abs(g) })
    }

Line breaks and spaces do not matter, `#` starts a comment. A value is defined once, before it is used. Grammar:

    model     = [ "opset" INT { "," domain INT } ] scope { "function" domain "." op scope }
    scope     = "(" [ param { "," param } ] ")" "->" "(" [ result { "," result } ] ")" "{" { statement } "}"
    param     = name [ ":" type ] | name "=" tensor      the latter is an overridable initializer
    result    = name [ ":" type ]                        any value of the scope
    statement = target { "," target } "=" call
              | name "=" tensor                          an initializer with a name
    target    = name [ ":" type ] | "_"
    call      = [ domain "." ] op "(" [ operand { "," operand } ] { "," key "=" attribute } ")"
    operand   = name | call | tensor | "_"
    attribute = literal | type content | scope
              | "@" name                                 what the caller of the enclosing function gives
    tensor    = literal | type content                   no brackets in the type: a scalar
    content   = scalar                                   each element is that:      float16 0.5    float32[1, 64] 0
              | "{" [ scalar { "," scalar } ] "}"        the elements, row by row:  int32[2, 2] {1, 2, 3, 4}
              | "random" "(" seed ")"                    floats: normal, std 1/√fan-in (vectors: 1);
                                                         bool, int8 and uint8: uniform
              | "data" "(" [ digest ] ")"                numbers that are not written down: cannot be computed with
    literal   = scalar | "[" [ scalar { "," scalar } ] "]"
                                                         as a tensor, 3 and [1, 2] are int64, 0.5 and [1.0, 2] float32
    scalar    = 3 | -0.5 | 1e-5 | inf | -inf | nan | true | false | "text"
    type      = dtype [ "[" [ dim { "," dim } ] "]" ]    float32[]: a scalar; float32: unknown rank; ?: unknown dtype
    dim       = 64 | N | 2*N + 1 | ?
    name      = letters, digits, `_`, `.`, `/`, not beginning with digit or dot; anything in backquotes: `onnx::Mul_2`

Parameters of a function that have a literal as default, and those written `name = @`, are its attributes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import onnx

from graphopt.errors import ModelError, near
from graphopt.ir import attributes, dims, dtypes
from graphopt.ir.attributes import Reference
from graphopt.ir.dims import Shape, Size
from graphopt.ir.graph import Graph
from graphopt.ir.model import Function, Model, canonical_domain
from graphopt.ir.node import IR_DOMAIN, Node, Value
from graphopt.ir.schema import first_version, onnx_schema
from graphopt.ir.tensor import Tensor
from graphopt.ir.text_constants import filled, seeded, unknown
from graphopt.ir.text_writer import NAME, WORDS, to_text

__all__ = ["parse", "to_text"]

T = TypeVar("T")
Declared = tuple[int, Shape | None]


class Token(NamedTuple):
    kind: str
    text: str
    start: int


_TOKEN = re.compile(
    rf"""(?:\s|\#[^\n]*)*(?:
        (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<quoted>`[^`]*`)
      | (?P<number>-?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|inf|nan)(?!\w))
      | (?P<name>{NAME})
      | (?P<mark>->|.)
      | (?P<end>\Z))""",
    re.VERBOSE,
)


def parse(text: str, *, opset: int = 20, where: str = "text", line: int = 1) -> Model:
    """The model that `text` says; `opset` is the standard domain's where the text has no opset line.

    Types of inner values are not inferred. Errors call the text `where` and its first line `line`.
    Raises: ModelError GO046 with line, column and what stands there.
    """
    return _Parser(text, where, line).model(opset)


class _Parser:
    """Reads the tokens from left to right and builds the graph as it goes."""

    def __init__(self, text: str, where: str, line: int) -> None:
        self.text = text
        self.where = where
        self.line = line
        self.tokens: list[Token] = []
        at = 0
        while not self.tokens or self.tokens[-1].kind != "end":
            match = _TOKEN.match(text, at)
            assert match is not None and match.lastgroup is not None
            at = match.end()
            self.tokens.append(Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
        self.at = 0

    # ---- tokens ------------------------------------------------------------------------------------------------

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def error(self, message: str, token: Token | None = None, hint: str = "") -> ModelError:
        start = (token or self.token).start
        row, column = self.text.count("\n", 0, start), start - self.text.rfind("\n", 0, start)
        line = self.text.split("\n")[row].strip()
        return ModelError("GO046", message, f"{self.where}:{self.line + row}:{column}: {line}", hint)

    def wrong(self, wanted: str) -> ModelError:
        return self.error(f"expected {wanted}, found " + (f"'{self.token.text}'" if self.token.text else "the end"))

    def take(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def ahead(self, *marks: str, by: int = 0) -> bool:
        token = self.tokens[min(self.at + by, len(self.tokens) - 1)]
        return token.kind in ("mark", "name") and token.text in marks

    def accept(self, mark: str) -> bool:
        found = self.ahead(mark)
        self.at += found
        return found

    def expect(self, mark: str) -> None:
        if not self.accept(mark):
            raise self.wrong(f"'{mark}'")

    def several(self, close: str, item: Callable[[], T]) -> list[T]:
        """`[ item { "," item } ] close`"""
        items: list[T] = []
        while not self.accept(close):
            if items and not self.accept(","):
                raise self.wrong(f"',' or '{close}'")
            items.append(item())
        return items

    def raw(self, *stops: str) -> str:
        """The text up to one of `stops` that is not in parentheses."""
        start = self.token.start
        depth = 0
        while self.token.kind != "end" and (depth or not self.ahead(*stops)):
            depth += self.ahead("(") - self.ahead(")")
            self.at += 1
        return self.text[start : self.token.start].strip()

    def unquoted(self, token: Token) -> str:
        try:
            return str(json.loads(f'"{token.text[1:-1]}"', strict=False))
        except ValueError as error:
            raise self.error(f"a wrong escape: {error}", token) from error

    def name(self, what: str = "a name") -> tuple[str, Token]:
        token = self.token
        if token.kind not in ("name", "quoted"):
            raise self.wrong(what)
        self.at += 1
        return (self.unquoted(token) if token.kind == "quoted" else token.text), token

    # ---- scopes ------------------------------------------------------------------------------------------------

    def model(self, opset: int) -> Model:
        opsets = {"": opset}
        if self.accept("opset"):
            opsets[""] = self.integer()
            while self.accept(","):
                opsets[canonical_domain(self.name("a domain")[0])] = self.integer()
        model = Model.empty(opsets[""])
        model.opsets.update(opsets)
        model.ledger.names.update(token.text for token in self.tokens if token.kind == "name")
        self.scope(model.graph)
        while self.accept("function"):
            domain, op = self.operator()
            graph = Graph(model.ledger)
            graph.opsets = model.opsets
            proto = onnx.FunctionProto(domain=domain, name=op)
            self.scope(graph, proto)
            proto.input.extend(node.output.name for node in graph.inputs)
            proto.output.extend(value.name for value in graph.outputs)
            model.functions[domain, op, ""] = Function(proto, graph)
        if self.token.kind != "end":
            raise self.wrong("the end")
        for graph in model.scopes():
            for node in graph.ops():
                if node.domain != IR_DOMAIN:
                    model.opsets.setdefault(node.domain, 1)
        return model

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
            default = self.tensor(graph)
            graph.add_input(name, default.dtype, default.shape, default)
        elif self.accept("@"):
            function.attribute.append(name)
        else:
            function.attribute_proto.append(attributes.encode(name, self.literal()))

    def annotation(self) -> Declared:
        return self.type_of_value() if self.accept(":") else (0, None)

    def new_name(self, graph: Graph) -> str:
        """The name of a value that is to be defined here; empty for `_`."""
        name, token = self.name()
        if token.text == "_":
            return ""
        if token.text in WORDS:
            raise self.error(f"'{name}' cannot be a name", token, f"write `{name}`")
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
        targets = self.several("=", lambda: (self.new_name(graph), self.annotation()))
        names = [name for name, _ in targets]
        if twice := {name for name in names if name and names.count(name) > 1}:
            raise self.error(f"'{min(twice)}' is defined twice")
        if self.ahead("(", by=1):
            node = self.call(graph, names)
            for value, (_, (dtype, shape)) in zip(node.outputs, targets, strict=True):
                value.dtype, value.shape = dtype, shape
        elif len(names) == 1 and names[0]:
            self.constant(graph, names[0])
        else:
            raise self.wrong("an operation")

    def constant(self, graph: Graph, name: str) -> Value:
        node = graph._source("Constant", name)
        node.data = tensor = self.tensor(graph)
        node.output.dtype, node.output.shape = tensor.dtype, tensor.shape
        return node.output

    def operator(self) -> tuple[str, str]:
        domain, _, op = self.name("an operation")[0].rpartition(".")
        return canonical_domain(domain), op

    def call(self, graph: Graph, names: list[str] | None = None) -> Node:
        """Adds one operation; its outputs are called `names`, by default one output with a fresh name."""
        domain, op = self.operator()
        # As for a rule that writes an operator which only a newer opset has.
        version = graph.opsets.get(domain, 1)
        node = Node(graph, op, domain, version if domain else max(version, first_version(domain, op)))
        self.expect("(")
        inputs: list[Value | None] = []
        while not self.ahead(")") and not self.ahead("=", by=1):
            inputs.append(self.operand(graph))
            if not self.ahead(")"):
                self.expect(",")
        graph._append(node)
        node.inputs = [None] * len(inputs)
        node.arity = len(inputs)
        for slot, value in enumerate(inputs):
            if value is not None:
                graph._join(node, slot, value)
        node._edits = dict(a for a in self.several(")", lambda: self.attribute(node)) if a[1] is not None) or None
        names = [graph.ledger.fresh(op.lower())] if names is None else names
        node.outputs = tuple(Value(node, index, name) for index, name in enumerate(names))
        graph._register(node)
        return node

    def operand(self, graph: Graph) -> Value | None:
        if self.accept("_"):
            return None
        if self.ahead("(", by=1):
            return self.call(graph).output
        if self.token.kind == "quoted" or (self.token.kind == "name" and self.token.text not in WORDS):
            return self.lookup(graph, *self.name())
        return self.constant(graph, graph.ledger.fresh("constant"))

    def attribute(self, node: Node) -> tuple[str, Any]:
        """One attribute; None in place of a subgraph, which goes to the node."""
        key = self.name("an attribute")[0]
        self.expect("=")
        if self.ahead("("):
            graph = Graph(node.graph.ledger, node)
            node.graphs = {**(node.graphs or {}), key: [graph]}
            self.scope(graph)
            return key, None
        if self.accept("@"):
            schema = onnx_schema(node.domain, node.op, node.version)
            known = schema.attributes.get(key) if schema else None
            return key, Reference(self.name()[0], known.type.value if known else 0)
        return key, self.tensor(node.graph) if self.ahead(*dtypes.NUMBERS) else self.literal()

    # ---- types and constants -----------------------------------------------------------------------------------

    def type(self) -> Declared:
        token = self.take()
        if token.text != "?" and token.text not in dtypes.NUMBERS:
            raise self.error(f"no element type is called '{token.text}'", token, near(token.text, dtypes.NUMBERS))
        dtype = dtypes.NUMBERS.get(token.text, 0)
        return dtype, tuple(self.several("]", lambda: self.dim())) if self.accept("[") else None

    def dim(self) -> Size:
        text = self.raw(",", "]")
        if not text:
            raise self.wrong("a dimension")
        return self.unknowns.fresh() if text == "?" else dims.parse(text)

    def tensor(self) -> Tensor:
        start = self.token
        if start.text not in dtypes.NUMBERS:
            literal = self.literal()
            listed = isinstance(literal, list)
            elements = literal if listed else [literal]
            return self.filled(start, _kind(elements), (len(elements),) if listed else (), elements)
        dtype, shape = self.type()
        sizes = tuple(size for size in shape or () if isinstance(size, int))
        if len(sizes) < len(shape or ()):
            raise self.error("the dimensions of a constant are integers", start)
        if self.accept("random"):
            self.expect("(")
            seed = self.integer()
            self.expect(")")
            try:
                return seeded(dtype, sizes, seed)
            except ValueError as error:
                raise self.error(str(error), start) from error
        if self.accept("data"):
            self.expect("(")
            digest = self.raw(")")
            self.expect(")")
            return unknown(dtype, sizes, digest)
        if self.accept("{"):
            return self.filled(start, dtype, sizes, self.several("}", self.scalar), single=False)
        return self.filled(start, dtype, sizes, [self.scalar()])
