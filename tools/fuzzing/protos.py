"""Mutations of models that know what a model is; many of them leave it valid."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from onnx import ModelProto

from fuzzing import structure, values, wires

Mutation = Callable[[ModelProto, Random], None]


MUTATIONS: tuple[Mutation, ...] = (
    *(wires.rewire,) * 4,
    wires.rewire_to_anything,
    *(wires.swap_operands,) * 2,
    wires.drop_operand,
    wires.add_operand,
    *(wires.duplicate_node,) * 2,
    *(wires.delete_node,) * 2,
    *(wires.swap_nodes,) * 2,
    *(wires.insert_node,) * 3,
    *(wires.widen,) * 2,
    *(wires.expose,) * 3,
    wires.hide,
    *(wires.rename,) * 2,
    wires.rename_nodes,
    *(values.change_operator,) * 2,
    values.change_domain,
    *(values.change_attribute,) * 4,
    values.drop_attribute,
    values.add_attribute,
    values.change_attribute_type,
    values.change_type,
    *(values.change_shape,) * 3,
    *(values.forget_shapes,) * 2,
    *(values.free_dimension,) * 2,
    values.lie_about_value,
    *(values.change_opset,) * 2,
    values.add_opset,
    values.change_ir_version,
    *(values.change_tensor,) * 3,
    *(values.change_tensor_shape,) * 3,
    values.change_tensor_type,
    values.swap_tensors,
    values.type_tensor,
    values.default_of_input,
    *(values.feed_tensor,) * 2,
    values.constant_of_tensor,
    *(values.fix_input,) * 2,
    *(structure.branch,) * 2,
    *(structure.call,) * 2,
    structure.call_itself,
    *(structure.repeat,) * 2,
    structure.annotate,
)


def mutated(data: bytes, rng: Random) -> tuple[bytes, dict[str, bytes], str]:
    """A model after one to six mutations, the files beside it, and the names of the mutations."""
    proto = ModelProto.FromString(data)
    done = []
    files: dict[str, bytes] = {}
    for _ in range(rng.choice((1, 1, 2, 2, 3, 6))):
        mutation = rng.choice(MUTATIONS)
        try:
            mutation(proto, rng)
        except Exception:  # nothing of the kind is there, or onnx cannot read what is
            continue
        done.append(mutation.__name__.strip("_"))
    if rng.random() < 0.06:
        structure.move_data_out(proto, files, rng)
        done.append("data out")
    return proto.SerializeToString(), files, "+".join(done)
