"""From the IR to files: whole or not at all, weights by reference where they already lie beside."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal

import onnx
from google.protobuf.message import EncodeError
from onnx import TensorProto

from graphopt.errors import GraphoptError, ModelError, UsageError
from graphopt.ir import dtypes, side, wire
from graphopt.ir.encode import (
    initializers,
    model_to_proto,
    model_without_nodes,
    nodes_in_slices,
    type_proto,
    value_info,
    written_name,
)
from graphopt.ir.model import Model
from graphopt.ir.node import IR_DOMAIN
from graphopt.ir.protos import copy_fields, tensors, tensors_in
from graphopt.ir.publish import Draft, behind_links, folder_at, inode_of, status, sync
from graphopt.ir.tensor import Tensor

External = Literal["never", "auto", "always"]

# protobuf ends at 2 GiB; what is no weight is small beside them.
_PROTO_LIMIT = 2_000_000_000
_PROTO_END = 1 << 31
_ALIGNMENT = 4096
_SMALL_TENSOR = 1024
_TYPED = ("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")
_DATA_FIELDS = ("data_location", "external_data", "raw_data", *_TYPED)


@dataclass(frozen=True)
class Saved:
    """The files written, the model last, and by location the files with weights that it shares with its input."""

    files: list[Path]
    shared: tuple[str, ...]


def save(
    model: Model, path: str | os.PathLike[str], *, external: External = "auto", in_place: bool = False
) -> list[Path]:
    """Writes `model`; returns the files written, the model last.

    A reader of `path` sees the old model with its weights or the new one with its own, whenever the machine or this
    process ends. What a link points to is replaced, not the link; what is replaced gives its permissions.

    `external` says where weights of a kilobyte and more go: `auto` keeps the input's way (what lies in files beside
    `path` stays there, untouched; what lies in files elsewhere is copied by the kernel, new weights of a model that has
    external ones go out, too) but for more than 2 GB, `always` and `never` mean all. They go to a side file, whose name
    no file had: `<path>.data`, else `<path>.1.data`, ...; that of a model which is replaced is removed at the end, if
    it was written here and no other model of the folder uses it.

    Raises: UsageError GO011 when `path` is the input or holds the input's weights, without `in_place`; ModelError GO032
    when the folder cannot be written, GO033 when protobuf cannot hold what is to be in one file, GO031 when weights are
    not there any more; GraphoptError GO072 when an op of the domain ir is left.
    """
    return write(model, path, external=external, in_place=in_place).files


def write(model: Model, path: str | os.PathLike[str], *, external: External = "auto", in_place: bool = False) -> Saved:
    """What `save` does, and what it did."""
    check_output(model, path, in_place=in_place)
    _refuse_internal(model)
    target = behind_links(Path(path))
    writer = _Writer(model, target, external)
    if target.parent.resolve() != Path(path).parent.resolve() and (writer.side.size or writer.used):
        message = "the output is a link to another folder, and who reads it as that would not find its weights"
        raise UsageError("GO011", message, str(Path(path)), f"name what it leads to, {target}, or another output")
    try:
        with folder_at(target.parent) as folder:
            files = _publish(writer, target, folder)
    except OSError as error:
        raise _cannot_write(error, target) from error
    return Saved(files, tuple(sorted(writer.used)))


def check_output(model: Model, path: str | os.PathLike[str], *, in_place: bool = False) -> None:
    """Raises what `save` would raise before it writes, so that a long run can ask at its beginning.

    UsageError GO011 when `path` is the input or holds its weights, without `in_place`; ModelError GO032 when there
    cannot be a file, or is one that may not be written.
    """
    target = Path(path)
    try:
        target = behind_links(target)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if target.exists():
            if not target.is_file():
                # To rename a file over /dev/null would take it from everybody.
                raise OSError(errno.EINVAL, "not a regular file")
            if not os.access(target, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
                # A file in a folder that may be written can be replaced, but somebody protected this one.
                raise OSError(errno.EACCES, "the file that is there is read-only")
        # On every system the one sure test, and the file never has a name.
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise _cannot_write(error, Path(path)) from error
    if in_place:
        return
    hint = "choose another output, or allow it with --in-place"
    if model.path is not None and _same(target, model.base / model.path.name):
        raise UsageError("GO011", "the output is the input", str(Path(path)), hint)
    if any(_same(target, file) for file in model.data_files.values()):
        raise UsageError("GO011", "the output is a file that the input's weights live in", str(Path(path)), hint)


def _same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file: links, folders that are mounted twice and letter case make many of one."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return one.resolve() == other.resolve()


def _refuse_internal(model: Model) -> None:
    for graph in model.scopes():
        for node in graph.ops():
            if node.domain == IR_DOMAIN:
                raise GraphoptError("GO072", f"{node.op} of the domain ir was not lowered: no file has it", node.place)


def _cannot_write(error: OSError, target: Path) -> ModelError:
    return ModelError("GO032", f"cannot write: {error.strerror}", str(target))


@dataclass
class _SideFile:
    """A file of raw data that is to be written; `places` are the entries that will say what it is called."""

    chunks: list[wire.Bytes] = field(default_factory=list)
    size: int = 0
    places: list[onnx.StringStringEntryProto] = field(default_factory=list)

    def add(self, proto: TensorProto, raw: wire.Bytes) -> None:
        """Takes `raw` in; `proto`, which has no data, then says where it lies."""
        padding = -self.size % _ALIGNMENT
        self.chunks += [bytes(padding), raw]
        offset = self.size + padding
        self.size = offset + len(raw)
        self.places.append(proto.external_data.add(key="location"))
        for key, entry in (("offset", str(offset)), ("length", str(len(raw)))):
            proto.external_data.add(key=key, value=entry)
        proto.data_location = TensorProto.EXTERNAL


class _Writer:
    """Decides for each tensor whether it stays in its file, goes to the side file, or into the model.

    `used` are the locations of data files that the model goes on to share with its input. `nodes` are kept where they
    may hold external data, and else made as they are written.
    """

    def __init__(self, model: Model, target: Path, external: External) -> None:
        weights = initializers(model.graph)
        inside = sum(tensor.nbytes for _, tensor in weights if tensor.external is None)
        self.model = model
        self.target = target
        self.side = _SideFile()
        self.never = external == "never"
        beside = not self.never and model.base.resolve() == target.resolve().parent
        self.staying = {place for place, file in model.data_files.items() if beside and file != target.resolve()}
        self.used: set[str] = set()
        self.new_go_out = external == "auto" and bool(model.data_files)
        self.all_go_out = external == "always" or (external == "auto" and inside > _PROTO_LIMIT)
        proto = model_without_nodes(model)
        self.graph = proto.graph
        self.nodes: list[onnx.GraphProto] | None = None
        self.head = copy_fields(proto, onnx.ModelProto(), "graph")
        if model.data_files:
            for name in ("functions", "training_info"):
                proto.ClearField(name)
            self.nodes = list(nodes_in_slices(model.graph))
            self._move_others(chain(tensors(self.head), tensors(proto), tensors_in([*self.nodes])))
        self.parts = [self._part(name, tensor) for name, tensor in weights]
        self._expect_used()

    @property
    def input_files(self) -> set[str]:
        """The names of files in the target's folder that the input consists of."""
        read = [(self.model.base / self.model.path.name).resolve()] if self.model.path else []
        files = [*self.model.data_files.values(), *read]
        return {file.name for file in files if file.parent == self.target.resolve().parent}

    def chunks(self, side_name: str) -> list[wire.Bytes]:
        """The bytes of the model file when the side file is called so. Raises: ModelError GO033."""
        for entry in self.side.places:
            entry.value = side_name
        hint = "allow external data" if self.never else "what is not weights of the main graph is too much for any file"
        too_much = ModelError("GO033", "protobuf cannot hold more than 2 GB", str(self.target), hint)
        pieces = [[part.SerializeToString()] if raw is None else wire.tensor(part, raw) for part, raw in self.parts]
        try:
            nodes = nodes_in_slices(self.model.graph) if self.nodes is None else self.nodes
            chunks = list(wire.model(self.head, chain(nodes, [self.graph]), pieces))
        except EncodeError as error:
            raise too_much from error
        if sum(map(len, chunks)) >= _PROTO_END:
            raise too_much
        return chunks

    def _expect_used(self) -> None:
        """Looks whether the files are there that the model will share: another program may have removed one."""
        for location in sorted(self.used):
            if not (file := self.model.data_files[location]).is_file():
                raise ModelError("GO031", f"external data '{file}' is missing", str(self.model.path or "model"))

    def _part(self, name: str, tensor: Tensor) -> tuple[TensorProto, wire.Bytes | None]:
        """One initializer, and as far as they go into the model, its raw data."""
        entries = tensor.external
        if entries is not None and (location := entries.get("location", "")) in self.staying:
            self.used.add(location)
            return tensor.to_proto(name), None
        raw = self._raw(tensor)
        if raw is None:
            return tensor.to_proto(name), None
        header = TensorProto(name=name, data_type=tensor.dtype, dims=tensor.shape)
        if tensor.proto is not None:
            header = copy_fields(tensor.proto, TensorProto(), *_DATA_FIELDS)
            header.name = name
        new = tensor.proto is None and self.new_go_out
        if self._goes_out(raw, self.all_go_out or entries is not None or new):
            self.side.add(header, raw)
            return header, None
        return header, raw

    def _move_others(self, protos: Iterator[TensorProto]) -> None:
        """Moves external data that cannot stay, of tensors that are not initializers of the main graph."""
        for proto in protos:
            if proto.data_location != TensorProto.EXTERNAL:
                continue
            tensor = Tensor(proto, base=self.model.base)
            location = (tensor.external or {}).get("location", "")
            if location in self.staying:
                self.used.add(location)
                continue
            raw = _stored(tensor) or tensor.raw() or b""
            kept = None if self._goes_out(raw, True) else bytes(tensor.raw() or b"")
            del proto.external_data[:]
            proto.ClearField("data_location")
            if kept is None:
                self.side.add(proto, raw)
            else:
                proto.raw_data = kept

    def _raw(self, tensor: Tensor) -> wire.Bytes | None:
        """Raw data; None for what is best written as the proto that it is."""
        if tensor.is_deferred or tensor.external is not None:
            tensor.check()
            return _stored(tensor) or wire.Later(tensor.nbytes, tensor.raw)
        raw = _stored(tensor) or tensor.raw()
        if raw is None and self.all_go_out and tensor.dtype != dtypes.STRING and tensor.nbytes >= _SMALL_TENSOR:
            return Tensor.of(tensor.numpy()).raw()
        return raw

    def _goes_out(self, raw: wire.Bytes, wanted: bool) -> bool:
        return wanted and not self.never and len(raw) >= _SMALL_TENSOR


def _stored(tensor: Tensor) -> wire.Stored | None:
    """Where in a file the raw data lies; None where it does not, and for no data at all."""
    place = tensor.place()
    return wire.Stored(*place) if place is not None and place[2] else None


def _publish(writer: _Writer, target: Path, folder: int) -> list[Path]:
    """Writes the side file and the model without names or under hidden ones, names the first, and replaces the model.

    Only then goes the side file of the model that was replaced; a hidden file says so to the next run, should this die.
    """
    side.remove_left_behind(folder, target.parent)
    old = status(target.name, folder)
    before = _used_by(target) if old is not None else frozenset()
    taken = before | writer.used | writer.input_files
    names = (name for name in side.side_names(target.name) if name not in taken and inode_of(name, folder) is None)
    name = next(names)
    chunks = writer.chunks(name)
    with ExitStack() as stack:

        def draft(like: os.stat_result | None = None) -> Draft:
            return stack.enter_context(closing(Draft(folder, like)))

        model, beside = draft(old), draft(old) if writer.side.size else None
        notes: list[Draft] = []
        unused: list[str] = []
        try:
            if beside is not None:
                beside.write([*writer.side.chunks, side.MARK])
            model.write(chunks)
            model.announce(beside.inode if beside is not None else 0)
            while beside is not None and not beside.publish(name):
                # Another run was quicker.
                name = next(names)
                model.write(writer.chunks(name))
            now = status(target.name, folder)
            if now is not None and (old is None or wire.stamp(now) != wire.stamp(old)):
                before |= _used_by(target)
            unused = side.written_here(folder, target.name, before - {name} - writer.used - writer.input_files)
            for file in unused:
                notes.append(draft())
                notes[-1].announce(inode_of(file, folder) or 0, witness=model.inode)
            sync(folder)
            model.replace(target.name)
        finally:
            if model.is_at(target.name):
                # It is there, whatever else fails.
                with suppress(OSError):
                    sync(folder)
                side.remove_unused(folder, target.parent, target.name, unused)
            else:
                notes += filter(None, [beside, model])
            for one in notes:
                one.discard()
    return [target.with_name(name), target] if beside is not None else [target]


def _used_by(path: Path) -> frozenset[str]:
    return side.locations(path) or frozenset()


__all__ = ["Saved", "check_output", "model_to_proto", "save", "type_proto", "value_info", "write", "written_name"]
