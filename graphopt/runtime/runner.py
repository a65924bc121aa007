"""Models run in a child process: a crash, a hang or a leak over there is an error over here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np

from graphopt.errors import GraphoptError, RuntimeCrash, UsageError
from graphopt.runtime.child import Child, ChildDied
from graphopt.runtime.protocol import (
    PROVIDERS,
    Array,
    Clocked,
    Crash,
    External,
    Hello,
    Kernel,
    Load,
    Memory,
    Opened,
    Port,
)
from graphopt.runtime.scratch import temporary_files

SPILL = 1 << 20
"""Bytes. In-memory initializers from this size on reach the child through a file that it maps."""

_NO_MEMORY = "MemoryError"
"""How Python says it where the limit is too low to begin with."""


class Runner:
    """A child process that creates and runs onnxruntime sessions, one request at a time; a context manager.

    `timeout` is seconds for each request (None: no limit), `memory` bytes that the child may allocate in all (None: no
    limit; weights that it maps read-only do not count, those onnxruntime maps itself do). `custom_ops` are libraries of
    kernels for operators that onnxruntime has not. `tf32` leaves it to onnxruntime and the environment whether a GPU
    rounds what float32 products are made of to 10 bits; else it does not. The child starts in `__enter__` without
    waiting for it. When it dies or overruns `timeout`, the request raises RuntimeCrash; the next request starts another
    child, and open sessions are created again in it when they are next used. Not for use from several threads at once.

    Requests raise RunError for what onnxruntime refuses, Unavailable where onnxruntime or the provider is missing.
    """

    def __init__(
        self,
        *,
        timeout: float | None = 300.0,
        memory: int | None = None,
        tf32: bool = False,
        custom_ops: Iterable[Path] = (),
    ) -> None:
        self.timeout = timeout
        self.memory = memory
        self.custom_ops = tuple(path.absolute() for path in custom_ops)
        self.tf32 = tf32
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._child: Child | None = None
        self._providers: tuple[str, ...] | None = None

    def __enter__(self) -> Self:
        with temporary_files():
            self._folder = tempfile.TemporaryDirectory(prefix="graphopt-", ignore_cleanup_errors=True)
        try:
            self._living()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the child and remove its files; sessions cannot be used any more."""
        # The files first: where this is interrupted, the child is there to remove the rest.
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        if self._child is not None:
            self._child.kill()
            self._child = None

    @property
    def folder(self) -> Path:
        """Where temporary files go. They are removed when the Runner is closed, and when this process dies, however it
        does: the child sees to that. Raises: RuntimeError when the Runner is not open."""
        if self._folder is None:
            raise RuntimeError("the Runner is closed: use it in a with statement")
        return Path(self._folder.name)

    def available_providers(self) -> tuple[str, ...]:
        """The providers that onnxruntime can create sessions on, by our names (`cpu`, `cuda`)."""
        if self._providers is None:
            self._hello()
            self._providers = self._ask("providers", doing="looking for providers", where="")
        return self._providers

    def version(self) -> str:
        """onnxruntime's version."""
        return self._hello().version

    def load(
        self,
        model: bytes | Path,
        *,
        optimize: bool,
        provider: str = "cpu",
        threads: int = 1,
        external: Mapping[str, External | Array] | None = None,
        base: Path | None = None,
        profile: bool = False,
        written: bool = False,
        entries: Mapping[str, str] | None = None,
        name: str = "",
    ) -> Session:
        """Create a session of a model: a file, or the bytes of one (< 2 GB).

        `optimize=False` is the reference: no optimizer, no memory reuse, no prepacking. `threads` run inside one op.
        `external` gives the data of initializers of the main graph that the model only declares: data_location
        EXTERNAL, location PLACEHOLDER (`*`), its dtype and shape; large ones are used where they lie, without a copy,
        when the model is bytes, `optimize` is off and there is no `base`, otherwise with one during creation. Shapes of
        large ones are not checked by onnxruntime. `base` is the folder of a bytes model's own external data.
        `profile` records kernels; `written` keeps the graph that the optimizer makes. `entries` are session
        configuration entries, laid over ours; for example
        `optimization.disable_specified_optimizers`, names separated by semicolons. Errors call the model `name`.
        """
        if provider not in PROVIDERS:
            raise UsageError("GO015", f"unknown provider '{provider}'", hint=f"known: {', '.join(PROVIDERS)}")
        name = name or (f"a model of {len(model)} bytes" if isinstance(model, bytes) else str(model))
        request = Load(
            model if isinstance(model, bytes) else model.absolute(),
            optimize,
            provider,
            threads,
            dict(external or {}),
            base.absolute() if base is not None else None,
            profile,
            written,
            dict(entries or {}),
            name,
            self.custom_ops,
        )
        return Session(self, request)

    def time(
        self, sessions: Sequence[Session], feeds: Mapping[str, Any], *, runs: int, warmup: int
    ) -> list[list[float]]:
        """Seconds of wall time of each of `runs` runs of each session: what `clock` gives, without CPU time."""
        return [one.wall for one in self.clock(sessions, feeds, runs=runs, warmup=warmup)]

    def clock(self, sessions: Sequence[Session], feeds: Mapping[str, Any], *, runs: int, warmup: int) -> list[Clocked]:
        """Seconds of each of `runs` runs of each session, interleaved A B, B A, A B, … in one process.

        All sessions get the same `feeds` and compute all their outputs. Sessions meant for comparison are loaded with
        `optimize=True` and the same `threads`. Besides one run each, the first `warmup` rounds are not counted.
        """
        names = ", ".join(session.name for session in sessions)
        keys = [session._key() for session in sessions]
        return cast(list[Clocked], self._ask("clock", keys, _plain(feeds), runs, warmup, doing="timing", where=names))

    def resident(self) -> Memory:
        """Memory of the child, as it is now and the most since the last look; the first look starts the child."""
        return cast(Memory, self._ask("resident", doing="looking at memory", where=""))

    def _living(self) -> Child:
        if self._folder is None:
            raise RuntimeError("the Runner is closed: use it in a with statement")
        if self._child is None or not self._child.alive:
            if self._child is not None:
                self._child.kill()
            self._child = Child(self.folder, self.memory, self.tf32)
        return self._child

    def _hello(self) -> Hello:
        try:
            return self._living().hello(self.timeout)
        except ChildDied as death:
            raise _crash(death, "starting", "") from None

    def _ask(self, verb: str, *arguments: Any, doing: str, where: str) -> Any:
        try:
            return self._living().ask(verb, arguments, self.timeout)
        except ChildDied as death:
            raise _crash(death, doing, where) from None

    def _open(self, request: Load) -> Opened:
        spilled: list[Path] = []
        try:
            external = {name: self._spill(source, spilled) for name, source in request.external.items()}
            opened = self._ask("load", replace(request, external=external), doing="loading", where=request.name)
        except RuntimeCrash as crash:
            raise Crash(crash, request, {}) from None
        finally:
            for path in spilled:
                path.unlink(missing_ok=True)  # the child has mapped it
        return cast(Opened, opened)

    def _spill(self, source: External | Array, spilled: list[Path]) -> External | Array:
        if isinstance(source, External) or source.nbytes < SPILL or source.dtype.kind not in "biufc":
            return source
        path = self.folder / f"spill{len(spilled)}"
        spilled.append(path)
        with temporary_files():
            path.write_bytes(np.ascontiguousarray(source).reshape(-1).view(np.uint8).data)
        return External(Path(os.path.realpath(path)), 0, source.nbytes, source.dtype, source.shape)


class Session:
    """One model in the child. `inputs` and `outputs` are its ports; `close` frees it, as leaving a with block does."""

    def __init__(self, runner: Runner, request: Load) -> None:
        self._runner = runner
        self._request = request
        self._child: Child | None = None
        self._open()

    @property
    def name(self) -> str:
        return self._request.name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        # Who wants the program to end does not wait for the child, which is ended with the Runner.
        if kind is None or issubclass(kind, Exception):
            self.close()

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Run once; `outputs` by name (None: all).

        A feed, and an output, is an array; a list of arrays for a sequence; None for an empty optional; an array of
        `object` for strings. bfloat16, float8, int4 and the like are `ml_dtypes` arrays, or as feeds their raw bits
        (uint8, uint16), and cannot be mixed with strings, sequences and optionals in one run.
        """
        wanted = list(outputs) if outputs is not None else [port.name for port in self.outputs]
        key = self._key()
        try:
            values = self._runner._ask("run", key, _plain(feeds), wanted, doing="running", where=self.name)
        except RuntimeCrash as crash:
            raise Crash(crash, self._request, feeds) from None
        return dict(zip(wanted, values, strict=True))

    def kernels(self) -> list[Kernel]:
        """The kernels that ran since the session was created with `profile=True`, in order; ends the recording."""
        if not self._request.profile:
            raise ValueError("kernels() needs a session loaded with profile=True")
        return cast(list[Kernel], self._runner._ask("kernels", self._key(), doing="profiling", where=self.name))

    def optimized(self) -> bytes:
        """The model that onnxruntime's optimizer made, without its large weights; of one loaded with `written=True`."""
        if not self._request.written:
            raise ValueError("optimized() needs a session loaded with written=True")
        return cast(bytes, self._runner._ask("optimized", self._key(), doing="reading", where=self.name))

    def close(self) -> None:
        """Free the session in the child. Used again, it is created again."""
        if self._child is not None and self._child is self._runner._child and self._child.alive:
            with suppress(GraphoptError):
                self._runner._ask("close", self._opened.key, doing="closing", where=self.name)
        self._child = None

    def _open(self) -> None:
        self._opened = self._runner._open(self._request)
        self._child = self._runner._child
        self.inputs: tuple[Port, ...] = self._opened.inputs
        self.outputs: tuple[Port, ...] = self._opened.outputs

    def _key(self) -> int:
        if self._runner._living() is not self._child:
            self._open()
        return self._opened.key


def _plain(feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Feeds as plain C-ordered arrays: a memmap would be unpickled as a memmap."""
    return {name: _plain_feed(feed) for name, feed in feeds.items()}


def _plain_feed(feed: Any) -> Any:
    if feed is None or isinstance(feed, dict):
        return feed
    return [_plain_feed(item) for item in feed] if isinstance(feed, list) else np.asarray(feed, order="C")


def _crash(death: ChildDied, doing: str, where: str) -> RuntimeCrash:
    code, hint = ("GO052", "allow more with --timeout") if death.timed_out else ("GO051", "")
    if _NO_MEMORY in str(death):
        code, hint = "GO056", "allow more with --memory"
    return RuntimeCrash(code, f"onnxruntime {death} while {doing}", where, hint)
