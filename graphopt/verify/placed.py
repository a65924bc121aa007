"""Weights that onnxruntime reads from the model's own files, for sessions that would else copy them twice."""

from __future__ import annotations

from dataclasses import replace

import onnx
from onnx import TensorProto

from graphopt.runtime import External
from graphopt.verify.parts import Part


def read_from_files(part: Part) -> Part:
    """The part with weights declared where they lie, for onnxruntime to map; the same part where it cannot.

    It looks in one folder only, and kernels may need elements that are aligned.
    """
    folders = {place.path.parent for place in part.external.values()}
    if len(folders) != 1 or not all(map(_is_aligned, part.external.values())):
        return part
    (folder,) = folders
    if part.base is not None and part.base.resolve() != folder.resolve():
        return part
    proto = onnx.ModelProto.FromString(part.proto)
    for tensor in proto.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            place = part.external[tensor.name]
            del tensor.external_data[:]
            for key, value in (("location", place.path.name), ("offset", place.offset), ("length", place.length)):
                tensor.external_data.add(key=key, value=str(value))
    return replace(part, proto=proto.SerializeToString(), external={}, base=folder)


def _is_aligned(place: External) -> bool:
    return place.offset % place.dtype.itemsize == 0
