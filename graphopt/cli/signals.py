"""Signals that ask the program to end: whatever was begun is ended and removed on the way out, and one line says so."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final

_WORDS: Final = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}
_AGAIN: Final = 3.0
"""Seconds after which a signal comes once more: something has swallowed it, or does not end."""
_SOON: Final = 0.02


class Stopped(BaseException):
    """Somebody asked the program to end, by the signal `number`.

    Unlike SystemExit and KeyboardInterrupt, no rule that runs just then can be taken for its cause, and click leaves it
    alone. `written` are the files of the command that were written by then.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = signal.Signals(number)
        self.written: list[Path] = []

    def __str__(self) -> str:
        files = ", ".join(map(str, self.written)) or "nothing"
        return f"{_WORDS[self.number]}: {files} {'were' if len(self.written) > 1 else 'was'} written"

    @property
    def exit_code(self) -> int:
        """What a shell says of a program that the signal ended."""
        return 128 + self.number


def listen() -> None:
    """From now on a signal ends the program with one line, and with `stoppable` in order. What was to be ignored, as
    nohup asks for, is ignored."""
    sys.unraisablehook = _once_more
    for number in _WORDS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)


@contextmanager
def stoppable(*outputs: Path | None) -> Iterator[None]:
    """In it there may be something to end or to remove: a signal raises Stopped, once, which tells which of `outputs`
    were written.

    What C++ calls while it is imported must not raise: modules are imported before.
    """
    paths = [path for path in outputs if path is not None]
    before = [_version(path) for path in paths]
    for number in _WORDS:
        if signal.getsignal(number) is _leave:
            signal.signal(number, _stop)
    try:
        yield
    except Stopped as stop:
        stop.written += [path for path, old in zip(paths, before, strict=True) if _version(path) != old]
        raise


def ignore() -> None:
    """From now on no signal counts: the program ends by itself."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in _WORDS:
        if signal.getsignal(number) in (_leave, _stop):
            # In two steps: Python complains where one that came already is to be ignored.
            signal.signal(number, lambda *_: None)
            signal.signal(number, signal.SIG_IGN)


def stop_behind(error: BaseException | None) -> Stopped | None:
    """The Stopped that `error` came of: what is implemented in C may have made another exception of it."""
    seen: list[BaseException] = []
    # An exception may be among its own causes.
    while error is not None and not isinstance(error, Stopped) and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__
    return error if isinstance(error, Stopped) else None


def _version(path: Path) -> tuple[int, ...]:
    """What differs once another file is put in the place of this one, or it is written to."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _leave(number: int, frame: FrameType | None) -> None:
    stop = Stopped(number)
    with suppress(OSError):
        os.write(2, f"{stop}\n".encode())
    os._exit(stop.exit_code)


def _stop(number: int, frame: FrameType | None) -> None:
    ignore()  # who is impatient must not interrupt what cleans up
    _remind(number, _AGAIN)
    raise Stopped(number)


def _remind(number: int, seconds: float) -> None:
    signal.signal(signal.SIGALRM, lambda _, frame: _stop(number, frame))
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _once_more(ignored: sys.UnraisableHookArgs) -> None:
    """A signal that comes while a destructor or a callback runs cannot be raised there: it comes again right after."""
    if isinstance(ignored.exc_value, Stopped):
        _remind(ignored.exc_value.number, _SOON)
    else:
        sys.__unraisablehook__(ignored)
