"""A model to be looked at only: functions stand where they are called, large weights are declared and not there."""

from __future__ import annotations

from typing import Final

from onnx import helper

from graphopt.ir import Model, model_from_proto
from graphopt.ir.encode import initializers, model_without_weights
from graphopt.ir.infer import infer
from graphopt.passes.inline_functions import inline_functions
from graphopt.rewrite import Trace

_READ_BYTES: Final = 4096


def without_functions(model: Model) -> Model:
    """A copy in which types are known inside of what were functions; its inputs have the shapes of the original's."""
    proto = model_without_weights(model)
    for name, tensor in initializers(model.graph):
        if tensor.nbytes <= _READ_BYTES:
            proto.graph.initializer.append(tensor.to_proto(name))
        else:
            proto.graph.input.append(helper.make_tensor_value_info(name, tensor.dtype, tensor.shape))
    found = model_from_proto(proto, model.path)
    for node in model.graph.inputs:
        value = node.output
        found.graph.set_type(found.graph.names[value.name], value.dtype, value.shape)
    inline_functions(found, Trace())
    infer(found)
    return found
