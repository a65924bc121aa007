"""Bad files whose constants are not what their type and shape say."""

from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx import AttributeProto, SparseTensorProto, TensorProto, helper

from .bad_parts import BRANCHES, CALL, GOOD, Case, Make, changed, constant

_SHORT = constant(data_type=7, dims=[3], raw_data=bytes(8))


def _weight(**fields: object) -> Make:
    return changed(lambda model: model.graph.initializer[0].CopyFrom(constant(**fields)))


def _node(op: str, **attributes: object) -> Callable[[onnx.ModelProto], object]:
    return lambda model: model.graph.node.append(helper.make_node(op, [], ["k"], **attributes))  # type: ignore[arg-type]


def _in_branch(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute[0].g.initializer.append(_SHORT)


def _in_function(model: onnx.ModelProto) -> None:
    model.functions[0].node.append(helper.make_node("Constant", [], ["k"], value=_SHORT))


def _in_default(model: onnx.ModelProto) -> None:
    model.functions[0].attribute_proto.append(helper.make_attribute("given", _SHORT))


def _in_training(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.initializer.append(_SHORT)


def _sparse(
    dims: list[int], indices: TensorProto | None = None, values: TensorProto | None = None
) -> SparseTensorProto:
    return SparseTensorProto(
        values=values or TensorProto(name="s", data_type=1, dims=[2], float_data=[1.0, 2.0]),
        indices=indices or _indices([0, 3]),
        dims=dims,
    )


def _indices(numbers: list[int], dims: list[int] | None = None) -> TensorProto:
    return TensorProto(data_type=7, dims=dims or [len(numbers)], int64_data=numbers)


def _with_sparse(sparse: SparseTensorProto) -> Make:
    return changed(lambda model: model.graph.sparse_initializer.append(sparse))


def _sparse_attribute(model: onnx.ModelProto) -> None:
    node = model.graph.node.add(op_type="Constant", output=["k"])
    node.attribute.add(name="sparse_value", type=AttributeProto.SPARSE_TENSOR, sparse_tensor=_sparse([3]))


_TENSORS: dict[str, tuple[Make, str]] = {
    "a negative size": (_weight(data_type=1, dims=[-2], raw_data=bytes(8)), "negative size"),
    "two negative sizes": (_weight(data_type=1, dims=[-1, -2], raw_data=bytes(8)), "negative size"),
    "2^63 elements": (_weight(data_type=1, dims=[1 << 62, 2], raw_data=bytes(8)), "more elements than 64 bits"),
    "2^64 elements, which is 0": (_weight(data_type=1, dims=[1 << 32, 1 << 32]), "more elements than 64 bits"),
    "2^64 + 2 elements, which is 2": (
        _weight(data_type=1, dims=[2, 3, 3074457345618258603], raw_data=bytes(8)),
        "more elements than 64 bits",
    ),
    "2^80 elements": (_weight(data_type=1, dims=[1 << 40, 1 << 40], raw_data=bytes(8)), "more elements than 64 bits"),
    "no elements of 2^80": (_weight(data_type=1, dims=[1 << 40, 1 << 40, 0]), "more elements than 64 bits"),
    "2^62 elements": (_weight(data_type=1, dims=[1 << 62], raw_data=bytes(8)), "its data has 8"),
    "2^40 elements without data": (_weight(data_type=1, dims=[1 << 40]), "its data has 0"),
    "too few bytes": (_weight(data_type=1, dims=[2], raw_data=bytes(7)), "takes 8 bytes, its data has 7"),
    "too many bytes": (_weight(data_type=1, dims=[2], raw_data=bytes(9)), "takes 8 bytes, its data has 9"),
    "too few numbers": (_weight(data_type=1, dims=[2], float_data=[1.0]), "takes 2 entries, its data has 1"),
    "too many numbers": (_weight(data_type=1, dims=[2], float_data=[1.0] * 3), "takes 2 entries, its data has 3"),
    "numbers in a field of another type": (_weight(data_type=1, dims=[2], int32_data=[1, 2]), "its data has 0"),
    "bytes and numbers": (_weight(data_type=1, dims=[2], float_data=[1, 2], raw_data=bytes(8)), "more than one place"),
    "numbers twice": (_weight(data_type=1, dims=[2], float_data=[1, 2], int64_data=[1, 2]), "more than one place"),
    "no bytes, and numbers": (_weight(data_type=1, dims=[2], float_data=[1, 2], raw_data=b""), "more than one place"),
    "no data": (_weight(data_type=1, dims=[2]), "its data has 0"),
    "bytes of nothing": (_weight(data_type=1, dims=[0], raw_data=bytes(4)), "takes 0 bytes, its data has 4"),
    "a type that is none": (_weight(data_type=99, dims=[2], raw_data=bytes(8)), "unknown element type 99"),
    "a type below zero": (_weight(data_type=-1, dims=[2], raw_data=bytes(8)), "unknown element type -1"),
    "no type": (_weight(dims=[2], raw_data=bytes(8)), "unknown element type 0"),
    "half a byte too few": (_weight(data_type=TensorProto.INT4, dims=[3], raw_data=b"\x21"), "takes 2 bytes"),
    "half a byte too many": (_weight(data_type=TensorProto.UINT4, dims=[2], raw_data=b"\x21\3"), "takes 1 bytes"),
    "two bits too few": (_weight(data_type=TensorProto.INT2, dims=[5], raw_data=b"\x21"), "takes 2 bytes"),
    "half a complex number": (_weight(data_type=TensorProto.COMPLEX64, dims=[1], float_data=[1.0]), "takes 2 entries"),
    "strings as bytes": (_weight(data_type=TensorProto.STRING, dims=[1], raw_data=b"ab"), "its data has 2"),
    "too few strings": (_weight(data_type=TensorProto.STRING, dims=[3], string_data=[b"a"]), "its data has 1"),
    "a large constant with too few bytes": (
        _weight(data_type=1, dims=[6_000_000], raw_data=bytes(23_999_999)),
        "takes 24000000 bytes, its data has 23999999",
    ),
    "a large constant with numbers as well": (
        _weight(data_type=1, dims=[6_000_000], raw_data=bytes(24_000_000), float_data=[1.0]),
        "more than one place",
    ),
    "in a Constant": (changed(_node("Constant", value=_SHORT)), "takes 24 bytes, its data has 8"),
    "in a list of tensors": (changed(_node("Thing", many=[_SHORT])), "takes 24 bytes, its data has 8"),
    "in a branch": (changed(_in_branch, BRANCHES), "takes 24 bytes, its data has 8"),
    "in a function": (changed(_in_function, CALL), "takes 24 bytes, its data has 8"),
    "in a function's default": (changed(_in_default, CALL), "takes 24 bytes, its data has 8"),
    "in a training graph": (changed(_in_training, GOOD), "takes 24 bytes, its data has 8"),
}
_SPARSE: dict[str, tuple[Make, str]] = {
    "an index behind the end": (_with_sparse(_sparse([3])), "an index .* lies outside"),
    "an index below zero": (_with_sparse(_sparse([9], _indices([-1, 3]))), "an index .* lies outside"),
    "an index pair behind the end": (
        _with_sparse(_sparse([2, 2], _indices([0, 0, 1, 2], [2, 2]))),
        "an index .* lies outside",
    ),
    "an index for three values": (_with_sparse(_sparse([9], _indices([0, 1, 2]))), "2 values have indices int64"),
    "indices of three axes": (_with_sparse(_sparse([3, 3], _indices([0] * 6, [2, 3]))), "2 values have indices int64"),
    "indices that are floats": (
        _with_sparse(_sparse([9], TensorProto(data_type=1, dims=[2], float_data=[0, 1]))),
        "2 values have indices float32",
    ),
    "values in rows": (
        _with_sparse(_sparse([9], values=TensorProto(name="s", data_type=1, dims=[2, 1], float_data=[1, 2]))),
        "a sparse tensor of the shape",
    ),
    "no shape": (_with_sparse(_sparse([])), "of the shape"),
    "a shape below zero": (_with_sparse(_sparse([-9])), "of the shape"),
    "2^63 places": (_with_sparse(_sparse([1 << 32, 1 << 31])), "of the shape"),
    "an index behind the end, in a Constant": (changed(_sparse_attribute), "an index .* lies outside"),
}
TENSORS: dict[str, Case] = {
    **{name: (make, "GO034", words) for name, (make, words) in _TENSORS.items()},
    **{f"sparse, {name}": (make, "GO132", words) for name, (make, words) in _SPARSE.items()},
    "sparse, too few values": (
        _with_sparse(_sparse([9], values=TensorProto(name="s", data_type=1, dims=[2], float_data=[1]))),
        "GO034",
        "takes 2 entries, its data has 1",
    ),
}
