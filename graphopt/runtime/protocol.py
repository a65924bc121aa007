"""What the two processes say to each other, and how it travels.

A message is a pickle (protocol 5) with its arrays out of band: a count, the length of each part, the parts. Arrays are
neither copied nor scanned on the way out. Requests are `(verb, arguments)`; replies are the value, or the
`GraphoptError` that came in its place.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from graphopt.errors import InconclusiveError, ModelError, RuntimeCrash

Array = npt.NDArray[Any]

PLACEHOLDER = "*"
"""The external-data `location` of an initializer whose data is given through `external`."""

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""Our names of execution providers, and onnxruntime's."""

TF32 = "NVIDIA_TF32_OVERRIDE"
"""The environment variable that, being 0, keeps NVIDIA's libraries from rounding float32 products to 10 bits."""


class RunError(ModelError):
    """onnxruntime refused to load or to run a model: invalid graph, missing kernel, shapes that do not fit, no memory.

    `phase` is `load` or `run`; `status` is onnxruntime's word for the failure (`FAIL`, `INVALID_ARGUMENT`,
    `NOT_IMPLEMENTED`, …), `MEMORY` when an allocation failed, or empty. `message` is onnxruntime's.
    """

    def __init__(self, phase: str, status: str, message: str, where: str = "") -> None:
        hint = "allow more with --memory" if status == "MEMORY" else ""
        if "is not a registered function/op" in message:
            hint = "--custom-ops LIB brings the kernels of operators that onnxruntime has not"
        super().__init__("GO054" if phase == "load" else "GO055", message, where, hint)
        self.phase = phase
        self.status = status

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.phase, self.status, self.message, self.where)


class Unavailable(InconclusiveError):
    """onnxruntime, or the provider that was asked for, is not installed: nothing can be run."""


@dataclass(frozen=True, slots=True)
class External:
    """Where the data of one initializer lies: `length` bytes at `offset` in `path`, little-endian, C order.

    `dtype` is numpy's or one of `ml_dtypes`; types narrower than a byte are packed, first element in the low bits.
    """

    path: Path
    offset: int
    length: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Port(NamedTuple):
    """An input or output: its name, onnxruntime's type (`tensor(float)`), its dimensions (None: unknown)."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


class Kernel(NamedTuple):
    """One kernel that ran: its node, what it computes, where, and for how many microseconds.

    `domain` is None for a node that onnxruntime's optimizer made, where onnxruntime does not say. `floats` is how many
    elements the largest output of floating-point numbers has; 0 where there is none.
    """

    node: str
    op: str
    domain: str | None
    provider: str
    micros: int
    floats: int = 0


class Clocked(NamedTuple):
    """Seconds that each of some runs took: `wall` by the clock, `cpu` of all threads of the process, user and system.

    Where other processes take the cores, the clock runs on and CPU time does not.
    """

    wall: list[float]
    cpu: list[float]


class Memory(NamedTuple):
    """Bytes of a process that are in memory: `now`, and at most since the last look."""

    now: int
    peak: int


class Hello(NamedTuple):
    """The child's first message: onnxruntime's version."""

    version: str


class Opened(NamedTuple):
    """The reply to `load`."""

    key: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """A session to create: the arguments of `Runner.load`."""

    model: bytes | Path
    optimize: bool
    provider: str = "cpu"
    threads: int = 1
    external: Mapping[str, External | Array] = field(default_factory=dict)
    base: Path | None = None
    profile: bool = False
    written: bool = False
    entries: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    custom_ops: tuple[Path, ...] = ()


class Crash(RuntimeCrash):
    """onnxruntime died, or was ended, while it loaded a model, `request`, or ran it on `feeds`."""

    def __init__(self, crash: RuntimeCrash, request: Load, feeds: Mapping[str, Any]) -> None:
        super().__init__(crash.code, crash.message, crash.where, crash.hint)
        self.request = request
        self.feeds = feeds


def send(stream: BinaryIO, message: object) -> None:
    """Write one message and flush. Raises BrokenPipeError when nobody reads any more."""
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(body), *(buffer.raw() for buffer in buffers)]
    stream.write(struct.pack(f"<{len(parts) + 1}Q", len(parts), *(part.nbytes for part in parts)))
    for part in parts:
        stream.write(part)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Read one message. Raises EOFError when the other side is gone."""
    (count,) = struct.unpack("<Q", _read(stream, 8))
    sizes = struct.unpack(f"<{count}Q", _read(stream, 8 * count))
    body, *buffers = [_read(stream, size) for size in sizes]
    return pickle.loads(body, buffers=buffers)


def _read(stream: BinaryIO, size: int) -> memoryview:
    # Not a bytearray: that would be zeroed first.
    buffer = np.empty(size, np.uint8).data
    done = 0
    while done < size:
        got = stream.readinto(buffer[done:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        done += got
    return buffer
