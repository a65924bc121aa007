"""The IR: an ONNX model as networkx graphs of nodes and values.

`load` and `save` are the way in and out, `Graph` holds the only functions that change a graph, `Model.ledger` the undo
journal. Names, types, shapes and constants are on `Value`, operators and attributes on `Node`.
"""

from graphopt.ir import dtypes
from graphopt.ir.dims import Dim, Shape, Size
from graphopt.ir.graph import CycleError, Graph
from graphopt.ir.ledger import Ledger
from graphopt.ir.load import Source, load, model_from_proto
from graphopt.ir.model import Function, Model
from graphopt.ir.node import IR_DOMAIN, Node, Value
from graphopt.ir.save import model_to_proto, save
from graphopt.ir.tensor import Tensor
from graphopt.ir.validate import ValidationError, validate, validate_site

__all__ = [
    "IR_DOMAIN",
    "CycleError",
    "Dim",
    "Function",
    "Graph",
    "Ledger",
    "Model",
    "Node",
    "Shape",
    "Size",
    "Source",
    "Tensor",
    "ValidationError",
    "Value",
    "dtypes",
    "load",
    "model_from_proto",
    "model_to_proto",
    "save",
    "validate",
    "validate_site",
]
