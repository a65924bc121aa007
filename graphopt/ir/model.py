"""A model: its main graph, opsets, functions, and whatever else its file said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from graphopt.ir.graph import Graph
from graphopt.ir.ledger import Ledger

FunctionKey = tuple[str, str, str]


def canonical_domain(domain: str) -> str:
    """`ai.onnx` and the empty string are one domain."""
    return "" if domain == "ai.onnx" else domain


@dataclass
class Function:
    """A function of the model: a body without captures. `proto` holds name, domain, attributes and documentation."""

    proto: onnx.FunctionProto
    graph: Graph


@dataclass
class Model:
    """An ONNX model.

    `opsets` maps domains to versions ('' is the standard domain), `proto` keeps what is neither graph nor function,
    `path` is the file it was read from, `data_files` are the external files that its weights live in, by location.
    """

    graph: Graph
    opsets: dict[str, int]
    ledger: Ledger
    proto: onnx.ModelProto
    functions: dict[FunctionKey, Function] = field(default_factory=dict)
    path: Path | None = None
    data_files: dict[str, Path] = field(default_factory=dict)

    @staticmethod
    def empty(opset: int = 17) -> Model:
        """A model without nodes, to be built through `graph`."""
        ledger = Ledger()
        graph = Graph(ledger)
        opsets = {"": opset}
        graph.opsets = opsets
        proto = onnx.ModelProto(ir_version=onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)]))
        return Model(graph, opsets, ledger, proto)

    @property
    def base(self) -> Path:
        """The folder that external data is relative to."""
        return self.ledger.base or Path()

    @property
    def opset(self) -> int:
        """The version of the standard domain."""
        return self.opsets.get("", 1)

    def scopes(self) -> Iterator[Graph]:
        """Every scope: the main graph and its subgraphs, then those of each function."""
        yield from self.graph.scopes()
        for function in self.functions.values():
            yield from function.graph.scopes()

    def node_count(self) -> int:
        """The number of ONNX nodes in all scopes."""
        return sum(1 for graph in self.scopes() for _ in graph.ops())
