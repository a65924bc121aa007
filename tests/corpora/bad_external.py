"""Bad files whose weights are said to lie in other files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import AttributeProto, SparseTensorProto, TensorProto, helper

from .bad_parts import BRANCHES, CALL, Case, Make, constant, good, parsed, save, socket_called

Prepare = Callable[[Path], object]

_OUTSIDE = ("GO030", "outside the model's folder")
_LINK = ("GO038", "link")
_NO_FILE = ("GO031", "is not a file")
_MISSING = ("GO031", "is missing")
_NO_PLACE = ("GO037", "is no name of a file")


def external(*entries: tuple[str, str], **more: str) -> TensorProto:
    """The constant `w`, two floats, with these entries."""
    proto = constant(data_type=1, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in (*entries, *more.items()):
        proto.external_data.add(key=key, value=value)
    return proto


def _with(proto: TensorProto, prepare: Prepare = bool) -> Make:
    def make(folder: Path) -> None:
        (folder / "w.bin").write_bytes(bytes(64))
        (folder / "sub").mkdir()
        (folder / "sub" / "w.bin").write_bytes(bytes(64))
        prepare(folder)
        model = good()
        model.graph.initializer[0].CopyFrom(proto)
        save(model, folder)

    return make


def _at(location: str, prepare: Prepare = bool) -> Make:
    return _with(external(location=location), prepare)


def _linked(to: str, name: str = "link.bin") -> Prepare:
    return lambda folder: (folder / name).symlink_to(to)


def _like_an_address(folder: Path) -> None:
    (folder / "*" / "_ORT_MEM_ADDR_").mkdir(parents=True)
    (folder / "*" / "_ORT_MEM_ADDR_" / "*").write_bytes(bytes(64))


def _absolute(name: str) -> Make:
    """External data at the absolute path of a file that is there, by its name relative to the model's folder."""
    return lambda folder: _at(os.path.normpath(folder / name))(folder)


def _hidden(add: Callable[[onnx.ModelProto, TensorProto], object], text: str | None = None) -> Make:
    """A model in which some other tensor than an initializer is said to lie in the secret file."""

    def make(folder: Path) -> None:
        model = good() if text is None else parsed(text)
        add(model, external(location="../secret.bin"))
        save(model, folder)

    return make


def _attribute(model: onnx.ModelProto, proto: TensorProto, **fields: object) -> None:
    node = model.graph.node.add(op_type="Constant", output=["k"])
    node.attribute.add(**fields)  # type: ignore[arg-type]


def _sparse(values: TensorProto) -> SparseTensorProto:
    values.name = "s"
    return SparseTensorProto(values=values, indices=TensorProto(data_type=7, dims=[2], int64_data=[0, 1]), dims=[9])


def _sparse_indices(model: onnx.ModelProto, proto: TensorProto) -> None:
    proto.data_type = TensorProto.INT64
    values = TensorProto(name="s", data_type=1, dims=[2], float_data=[1, 2])
    model.graph.sparse_initializer.append(SparseTensorProto(values=values, indices=proto, dims=[9]))


_PLACES: dict[str, tuple[Make, tuple[str, str]]] = {
    "absolute": (_absolute("../secret.bin"), _OUTSIDE),
    "absolute, in the folder": (_absolute("w.bin"), _OUTSIDE),
    "absolute, of the system": (_at("/etc/passwd"), _OUTSIDE),
    "absolute, by two slashes": (_at("//etc/passwd"), _OUTSIDE),
    "absolute, of the process": (_at("/proc/self/environ"), _OUTSIDE),
    "absolute, standard input": (_at("/proc/self/fd/0"), _OUTSIDE),
    "absolute, a device": (_at("/dev/zero"), _OUTSIDE),
    "above": (_at("../secret.bin"), _OUTSIDE),
    "above, from below": (_at("sub/../../secret.bin"), _OUTSIDE),
    "above, behind a dot": (_at("./../secret.bin"), _OUTSIDE),
    "above, and below again": (_at("../models/w.bin"), _OUTSIDE),
    "below and up again": (_at("sub/../w.bin"), _OUTSIDE),
    "far above": (_at("../" * 40 + "etc/passwd"), _OUTSIDE),
    "above, with backslashes": (_at("..\\secret.bin"), _NO_PLACE),
    "below, with backslashes": (_at("sub\\w.bin"), _NO_PLACE),
    "a drive": (_at("C:\\secret.bin"), _NO_PLACE),
    "a share": (_at("\\\\server\\secret.bin"), _NO_PLACE),
    "a NUL byte": (_at("w.bin\0.onnx"), _NO_PLACE),
    "the folder itself": (_at("."), _NO_PLACE),
    "a slash at the end": (_at("w.bin/"), _NO_PLACE),
    "an address in the runtime's memory": (
        _at("*/_ORT_MEM_ADDR_/*", _like_an_address),
        ("GO037", "no name of a file"),
    ),
    "no location": (_with(external()), ("GO037", "has no location")),
    "an empty location": (_at(""), ("GO037", "has no location")),
    "the user's folder": (_at("~/secret.bin"), _MISSING),
    "a variable": (_at("$HOME/secret.bin"), _MISSING),
    "an address": (_at("https://example.org/w.bin"), _MISSING),
    "an address of a file": (_at("file:///etc/passwd"), _MISSING),
    "missing": (_at("lost.bin"), _MISSING),
    "behind a file": (_at("w.bin/w.bin"), _MISSING),
    "a name that is too long": (_at("w" * 5000), ("GO031", "cannot be read")),
    "a name that forges an error": (_at("\nerror[GO999]: forged\n\x1b[31mred"), _MISSING),
    "a link out": (_at("link.bin", _linked("../secret.bin")), _LINK),
    "a link that stays": (_at("link.bin", _linked("w.bin")), _LINK),
    "a link to the system": (_at("link.bin", _linked("/etc/passwd")), _LINK),
    "a link to a device": (_at("link.bin", _linked("/dev/zero")), _LINK),
    "a link to nothing": (_at("link.bin", _linked("nothing")), _LINK),
    "a link to itself": (_at("link.bin", _linked("link.bin")), _LINK),
    "a link to a folder above": (_at("up/secret.bin", _linked("..", "up")), _LINK),
    "a link to a folder below": (_at("down/w.bin", _linked("sub", "down")), _LINK),
    "a link to the root": (_at("root/etc/passwd", _linked("/", "root")), _LINK),
    "a link to the process": (_at("self/environ", _linked("/proc/self", "self")), _LINK),
    "a hard link out": (_at("hard.bin", lambda f: os.link(f.parent / "secret.bin", f / "hard.bin")), _LINK),
    "a hard link that stays": (_at("hard.bin", lambda f: os.link(f / "w.bin", f / "hard.bin")), _LINK),
    "a folder": (_at("sub"), _NO_FILE),
    "a pipe": (_at("pipe", lambda folder: os.mkfifo(folder / "pipe")), _NO_FILE),
    "a socket": (_at("socket.bin", socket_called("socket.bin")), _NO_FILE),
    "the model itself": (_at("model.onnx", lambda f: (f / "model.onnx").write_bytes(bytes(9))), ("GO037", "itself")),
}

_NUMBERS = (
    *("1e3", "-1", "-0", " 7", "7 ", "0x10", "+1", "1_0", "1.0", "nan", "", "\u0663", "\u00b2", "0b1", "8,0", "8\n"),
    *(str(1 << 63), str(1 << 64), "9" * 5000),
)
_EXTENTS: dict[str, tuple[Make, tuple[str, str]]] = {
    **{
        f"{key} {number[:20]!r}": (_with(external(("location", "w.bin"), (key, number))), ("GO037", f"the {key} of"))
        for key in ("offset", "length")
        for number in _NUMBERS
    },
    "an offset behind the end": (_with(external(location="w.bin", offset="60")), ("GO031", "too short: 8 bytes at 60")),
    "an offset of 2^62": (_with(external(location="w.bin", offset=str(1 << 62))), ("GO031", "too short")),
    "offset and length beyond 2^63": (
        _with(external(location="w.bin", offset=str((1 << 63) - 1), length="8")),
        ("GO031", "too short"),
    ),
    "a short file": (_at("short.bin", lambda f: (f / "short.bin").write_bytes(bytes(7))), ("GO031", "too short")),
    "an empty file": (_at("empty.bin", lambda f: (f / "empty.bin").touch()), ("GO031", "too short")),
    "a length that is too short": (_with(external(location="w.bin", length="4")), ("GO034", "take 8 bytes")),
    "a length that is too long": (_with(external(location="w.bin", length="64")), ("GO034", "take 8 bytes")),
    "a length of 2^62": (_with(external(location="w.bin", length=str(1 << 62))), ("GO034", "take 8 bytes")),
    "two locations": (
        _with(external(("location", "w.bin"), ("location", "../secret.bin"))),
        ("GO037", "more than one 'location'"),
    ),
    "two offsets": (
        _with(external(("location", "w.bin"), ("offset", "0"), ("offset", "8"))),
        ("GO037", "more than one 'offset'"),
    ),
    "two lengths": (
        _with(external(("location", "w.bin"), ("length", "8"), ("length", "8"))),
        ("GO037", "more than one 'length'"),
    ),
    "only a folder": (_with(external(basepath="..")), ("GO037", "has no location")),
}


def _strings() -> TensorProto:
    proto = external(location="w.bin")
    proto.data_type = TensorProto.STRING
    return proto


def _with_bytes() -> TensorProto:
    proto = external(location="w.bin")
    proto.raw_data = bytes(8)
    return proto


def _huge() -> TensorProto:
    proto = external(location="w.bin")
    proto.dims[:] = [1 << 40]
    return proto


_HIDDEN: dict[str, tuple[Make, tuple[str, str]]] = {
    "in a Constant": (
        _hidden(lambda m, t: _attribute(m, t, name="value", type=AttributeProto.TENSOR, t=t)),
        _OUTSIDE,
    ),
    "in a list of tensors": (
        _hidden(lambda m, t: _attribute(m, t, name="many", type=AttributeProto.TENSORS, tensors=[t])),
        _OUTSIDE,
    ),
    "in a sparse Constant": (
        _hidden(
            lambda m, t: _attribute(
                m, t, name="sparse_value", type=AttributeProto.SPARSE_TENSOR, sparse_tensor=_sparse(t)
            )
        ),
        _OUTSIDE,
    ),
    "in sparse values": (_hidden(lambda m, t: m.graph.sparse_initializer.append(_sparse(t))), _OUTSIDE),
    "in sparse indices": (_hidden(_sparse_indices), _OUTSIDE),
    "in a branch": (
        _hidden(lambda m, t: m.graph.node[0].attribute[0].g.initializer.append(t), BRANCHES),
        _OUTSIDE,
    ),
    "in a function": (
        _hidden(lambda m, t: m.functions[0].node.append(helper.make_node("Constant", [], ["k"], value=t)), CALL),
        _OUTSIDE,
    ),
    "in a function's default": (
        _hidden(lambda m, t: m.functions[0].attribute_proto.append(helper.make_attribute("given", t)), CALL),
        _OUTSIDE,
    ),
    "in a graph of a function's default": (
        _hidden(
            lambda m, t: m.functions[0].attribute_proto.append(
                helper.make_attribute("given", helper.make_graph([], "inner", [], [], [t]))
            ),
            CALL,
        ),
        _OUTSIDE,
    ),
    "in a training graph": (_hidden(lambda m, t: m.training_info.add().algorithm.initializer.append(t)), _OUTSIDE),
    "in a node of a training graph": (
        _hidden(
            lambda m, t: m.training_info.add().initialization.node.append(
                helper.make_node("Constant", [], ["k"], value=t)
            )
        ),
        _OUTSIDE,
    ),
}

EXTERNAL: dict[str, Case] = {
    **{name: (make, *says) for name, (make, says) in (_PLACES | _EXTENTS | _HIDDEN).items()},
    "strings": (_with(_strings()), "GO034", "strings cannot lie in external data"),
    "bytes in the model as well": (_with(_with_bytes()), "GO034", "more than one place"),
    "2^40 numbers of a small file": (_with(_huge()), "GO031", "too short"),
}
