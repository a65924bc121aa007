"""Weights by reference: a part of a model declares them and says in which file they lie; they are not copied."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import onnx
from onnx import TensorProto

from graphopt.ir import Model, Node, Tensor, dtypes
from graphopt.ir.encode import initializers, model_without_weights
from graphopt.runtime import PLACEHOLDER, External, Runner
from graphopt.runtime.scratch import temporary_files
from graphopt.verify.structure import identical

_INLINE_BYTES = 4096


class Weights:
    """Where the data of constants lies: in the model's files, or in a temporary one for what is in memory only.

    That goes into the folder of `runner`, which is open whenever there is something to place. Where two models have the
    same data by the same name, it is the first model's that is used.
    """

    def __init__(self, runner: Runner | None = None) -> None:
        self._runner = runner
        self._stack = ExitStack()
        self._file: Path | None = None
        self._end = 0
        self._placed: dict[int, tuple[Tensor, External]] = {}
        self._named: dict[str, tuple[Tensor, External]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def declare(self, name: str, tensor: Tensor) -> tuple[TensorProto, External | None]:
        """The initializer called `name`: with its data, or a declaration and where the data lies."""
        if tensor.nbytes <= _INLINE_BYTES or tensor.dtype == dtypes.STRING:
            return _inlined(name, tensor), None
        proto = TensorProto(name=name, data_type=tensor.dtype, dims=tensor.shape, data_location=TensorProto.EXTERNAL)
        proto.external_data.add(key="location", value=PLACEHOLDER)
        return proto, self._place(name, tensor)

    def whole(self, model: Model) -> tuple[bytes, dict[str, External], Path | None]:
        """A model as onnxruntime loads it from memory: itself without weights, where those lie, and the folder of those
        that it reads by itself, None without any."""
        proto = model_without_weights(model)
        external: dict[str, External] = {}
        for name, tensor in initializers(model.graph):
            declared, place = self.declare(name, tensor)
            proto.graph.initializer.append(declared)
            if place is not None:
                external[name] = place
        base = model.base if any(map(reads_files, model.graph.ops())) else None
        return proto.SerializeToString(), external, base

    def _place(self, name: str, tensor: Tensor) -> External:
        key = id(tensor)
        if key not in self._placed:
            known, place = self._named.get(name, (None, None))
            if place is None or known is None or not identical(known, tensor):
                path, offset, length = tensor.place() or self._spill(tensor)
                place = External(path.absolute(), offset, length, dtypes.to_numpy(tensor.dtype), tensor.shape)
            self._placed[key] = tensor, place
            self._named.setdefault(name, self._placed[key])
        return self._placed[key][1]

    def _spill(self, tensor: Tensor) -> tuple[Path, int, int]:
        raw = tensor.raw()
        data = _raw_bytes(tensor) if raw is None else raw
        offset = -(-self._end // 64) * 64
        with temporary_files():
            if self._file is None:
                self._file = self._new_file()
            with self._file.open("r+b") as file:
                file.seek(offset)
                file.write(data)
        self._end = offset + len(data)
        return self._file, offset, len(data)

    def _new_file(self) -> Path:
        beside = self._runner.folder if self._runner is not None else None
        folder = tempfile.TemporaryDirectory(prefix="graphopt-", dir=beside, ignore_cleanup_errors=True)
        path = Path(os.path.realpath(self._stack.enter_context(folder))) / "weights"
        path.touch()
        return path


def let_go(model: Model) -> None:
    """Frees the memory of what was read of a model's own file: from here on it is the child that reads weights."""
    for node in model.graph.sources("Constant"):
        if node.data is not None and node.data.region is not None:
            node.data.region.let_go()


def reads_files(node: Node) -> bool:
    """Whether a subgraph of `node` has weights in files: the runtime can be given those of a main graph only."""
    scopes = (scope for graphs in (node.graphs or {}).values() for graph in graphs for scope in graph.scopes())
    tensors = (source.output.tensor for scope in scopes for source in scope.sources("Constant"))
    return any(tensor is not None and tensor.external is not None for tensor in tensors)


def _inlined(name: str, tensor: Tensor) -> TensorProto:
    proto = TensorProto()
    proto.CopyFrom(tensor.to_proto(name))
    if proto.data_location == TensorProto.EXTERNAL:
        proto.ClearField("data_location")
        del proto.external_data[:]
        proto.raw_data = bytes(tensor.raw() or b"")
    return proto


def _raw_bytes(tensor: Tensor) -> bytes:
    """Little-endian and packed, as in a file."""
    if tensor.proto is not None and tensor.proto.HasField("raw_data"):
        return tensor.proto.raw_data
    if dtypes.bits(tensor.dtype) % 8:
        return onnx.numpy_helper.from_array(tensor.numpy()).raw_data
    return tensor.numpy().tobytes()
