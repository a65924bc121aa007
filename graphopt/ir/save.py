"""From the IR to files: whole or not at all, weights by reference where they already lie beside."""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from onnx import TensorProto

from graphopt.errors import GraphoptError, ModelError, UsageError
from graphopt.ir import dtypes, wire
from graphopt.ir.encode import initializers, model_to_proto, model_without_weights, type_proto, value_info, written_name
from graphopt.ir.model import Model
from graphopt.ir.node import IR_DOMAIN
from graphopt.ir.protos import copy_fields, tensors
from graphopt.ir.tensor import Tensor

External = Literal["never", "auto", "always"]

# protobuf ends at 2 GiB; what is no weight is small beside them.
_PROTO_LIMIT = 2_000_000_000
_ALIGNMENT = 4096
_SMALL_TENSOR = 1024
_TYPED = ("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")
_DATA_FIELDS = ("data_location", "external_data", "raw_data", *_TYPED)


def save(
    model: Model, path: str | os.PathLike[str], *, external: External = "auto", in_place: bool = False
) -> list[Path]:
    """Writes `model`; returns the files written, the model last.

    Each file appears whole or not at all. `external` says where weights of a kilobyte and more go: `auto` keeps the
    input's way (what lies in files beside `path` stays there, untouched; what lies in files elsewhere is copied, new
    weights of a model that has external ones go out, too) but for more than 2 GB, `always` and `never` mean all. They
    go to `<path>.data`, or `<path>.1.data`, ... where the input's weights live in that. Raises: UsageError GO011 when
    `path` is the input or holds the input's weights, without `in_place`; ModelError GO032 when the folder cannot be
    written, GO033 when protobuf cannot hold what is to be in one file; GraphoptError GO072 when an op of the domain ir
    is left.
    """
    target = Path(path)
    check_output(model, target, in_place=in_place)
    _refuse_internal(model)
    weights = initializers(model.graph)
    inside = sum(tensor.nbytes for _, tensor in weights if tensor.external is None)
    writer = _Writer(model, target, external, inside)
    proto = model_without_weights(model)
    if model.data_files:
        writer.move_others(tensors(proto))
    chunks = list(wire.model(proto, [writer.pieces(name, tensor) for name, tensor in weights]))
    if sum(map(len, chunks)) >= 1 << 31:
        raise ModelError("GO033", "protobuf cannot hold more than 2 GB", str(target), "allow external data")
    files: list[tuple[Path, Iterable[wire.Bytes]]] = [(target, chunks)]
    if writer.side.size:
        files.insert(0, (writer.side.path, writer.side.chunks))
    try:
        _publish(files)
    except OSError as error:
        raise _cannot_write(error, target) from error
    return [path for path, _ in files]


def check_output(model: Model, path: str | os.PathLike[str], *, in_place: bool = False) -> None:
    """Raises what `save` would raise before it writes, so that a long run can ask at its beginning.

    UsageError GO011 when `path` is the input or holds its weights, without `in_place`; ModelError GO032 when there
    cannot be a file.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if target.exists() and not target.is_file():
            # To rename a file over /dev/null would take it from everybody.
            raise OSError(errno.EINVAL, "not a regular file")
        # On every system the one sure test, and the file never has a name.
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise _cannot_write(error, target) from error
    if in_place:
        return
    hint = "choose another output, or allow it with --in-place"
    if model.path is not None and target.resolve() == model.path.resolve():
        raise UsageError("GO011", "the output is the input", str(target), hint)
    if target.resolve() in model.data_files.values():
        raise UsageError("GO011", "the output is a file that the input's weights live in", str(target), hint)


def _refuse_internal(model: Model) -> None:
    for graph in model.scopes():
        for node in graph.ops():
            if node.domain == IR_DOMAIN:
                raise GraphoptError("GO072", f"{node.op} of the domain ir was not lowered: no file has it", node.place)


def _cannot_write(error: OSError, target: Path) -> ModelError:
    return ModelError("GO032", f"cannot write: {error.strerror}", str(target))


def _side_path(model: Model, target: Path) -> Path:
    """A name beside `target` under which no data of the input lies."""
    taken = {*model.data_files.values(), *([model.path.resolve()] if model.path else [])}
    number = 0
    while True:
        path = target.with_name(f"{target.name}.{number}.data" if number else f"{target.name}.data")
        if path.resolve() not in taken:
            return path
        number += 1


@dataclass
class _SideFile:
    """A file of raw data that is to be written."""

    path: Path
    chunks: list[wire.Bytes] = field(default_factory=list)
    size: int = 0

    def add(self, proto: TensorProto, raw: wire.Bytes) -> None:
        """Takes `raw` in; `proto`, which has no data, then says where it lies."""
        padding = -self.size % _ALIGNMENT
        self.chunks += [bytes(padding), raw]
        offset = self.size + padding
        self.size = offset + len(raw)
        for key, entry in (("location", self.path.name), ("offset", str(offset)), ("length", str(len(raw)))):
            proto.external_data.add(key=key, value=entry)
        proto.data_location = TensorProto.EXTERNAL


class _Writer:
    """Decides for each tensor whether it stays in its file, goes to the side file, or into the model.

    `inside` is how many bytes of weights are not in external files.
    """

    def __init__(self, model: Model, target: Path, external: External, inside: int) -> None:
        self.base = model.base
        self.side = _SideFile(_side_path(model, target))
        self.never = external == "never"
        beside = not self.never and model.base.resolve() == target.resolve().parent
        self.staying = {place for place, file in model.data_files.items() if beside and file != target.resolve()}
        self.new_go_out = external == "auto" and bool(model.data_files)
        self.all_go_out = external == "always" or (external == "auto" and inside > _PROTO_LIMIT)

    def pieces(self, name: str, tensor: Tensor) -> list[wire.Bytes]:
        """The bytes of one initializer, as far as they belong into the model."""
        entries = tensor.external
        raw = None if entries is not None and entries.get("location") in self.staying else self._raw(tensor)
        if raw is None:
            return [tensor.to_proto(name).SerializeToString()]
        header = TensorProto(name=name, data_type=tensor.dtype, dims=tensor.shape)
        if tensor.proto is not None:
            header = copy_fields(tensor.proto, TensorProto(), *_DATA_FIELDS)
            header.name = name
        new = tensor.proto is None and self.new_go_out
        if self._goes_out(raw, self.all_go_out or entries is not None or new):
            self.side.add(header, raw)
            return [header.SerializeToString()]
        return wire.tensor(header, raw)

    def move_others(self, protos: Iterator[TensorProto]) -> None:
        """Moves external data that cannot stay, of tensors that are not initializers of the main graph."""
        for proto in protos:
            if proto.data_location != TensorProto.EXTERNAL:
                continue
            tensor = Tensor(proto, base=self.base)
            if (tensor.external or {}).get("location") not in self.staying:
                raw = tensor.raw() or b""
                del proto.external_data[:]
                proto.ClearField("data_location")
                if self._goes_out(raw, True):
                    self.side.add(proto, raw)
                else:
                    proto.raw_data = bytes(raw)

    def _raw(self, tensor: Tensor) -> wire.Bytes | None:
        """Raw data; None for what is best written as the proto that it is."""
        if tensor.is_deferred or tensor.external is not None:
            tensor.check()
            return wire.Later(tensor.nbytes, tensor.raw)
        raw = tensor.raw()
        if raw is None and self.all_go_out and tensor.dtype != dtypes.STRING and tensor.nbytes >= _SMALL_TENSOR:
            return Tensor.of(tensor.numpy()).raw()
        return raw

    def _goes_out(self, raw: wire.Bytes, wanted: bool) -> bool:
        return wanted and not self.never and len(raw) >= _SMALL_TENSOR


def _publish(files: Iterable[tuple[Path, Iterable[wire.Bytes]]]) -> None:
    """Writes each file under a temporary name in its folder, then renames all: a reader sees the old or the new."""
    written: list[tuple[Path, Path]] = []
    try:
        for target, chunks in files:
            temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
            written.append((temporary, target))
            with temporary.open("xb") as file:
                for chunk in chunks:
                    file.write((chunk.read() or b"") if isinstance(chunk, wire.Later) else chunk)
                file.flush()
                os.fsync(file.fileno())
        for temporary, target in written:
            temporary.replace(target)
    except BaseException:
        for temporary, _ in written:
            temporary.unlink(missing_ok=True)
        raise


__all__ = ["check_output", "model_to_proto", "save", "type_proto", "value_info", "written_name"]
