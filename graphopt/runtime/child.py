"""The parent's end of one child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from graphopt.errors import GraphoptError
from graphopt.runtime.protocol import TF32, Hello, receive, send
from graphopt.runtime.scratch import temporary_files

_ROOT = Path(__file__).parents[2]
_TAIL = 4096
"""Bytes at the end of what the child printed in which its last line is looked for."""


class ChildDied(Exception):
    """The child did not answer; the text says how it ended, `timed_out` whether we ended it."""

    def __init__(self, text: str, timed_out: bool = False) -> None:
        super().__init__(text)
        self.timed_out = timed_out


class Child:
    """A worker process. Starting it does not wait for it: the first request does."""

    def __init__(self, scratch: Path, memory: int | None, tf32: bool) -> None:
        self._log = scratch / "stderr"
        self._hello: Hello | None = None
        self._expired = False
        with temporary_files():
            printed = self._log.open("wb")
        with printed as log:
            self._process = subprocess.Popen(
                # -P: no module of the current folder stands in for one of ours.
                [sys.executable, "-P", "-m", "graphopt.runtime.worker", str(scratch), str(memory or 0)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(tf32),
                process_group=0,  # an interrupt from the keyboard is for the parent, which ends the child
            )

    @property
    def alive(self) -> bool:
        return not self._expired and not self._is_over(os.WNOHANG)

    def hello(self, timeout: float | None) -> Hello:
        """What the child said first. Raises Unavailable without onnxruntime, ChildDied if it did not start."""
        if self._hello is None:
            self._hello = cast(Hello, self._exchange(None, timeout))
        return self._hello

    def ask(self, verb: str, arguments: tuple[Any, ...], timeout: float | None) -> Any:
        """The reply to one request. Raises the GraphoptError that the child sent, or ChildDied."""
        self.hello(timeout)
        return self._exchange((verb, arguments), timeout)

    def kill(self) -> None:
        """Ends it, and what it may have started."""
        self._kill_group()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                cast(Any, pipe).close()

    def _exchange(self, message: object, timeout: float | None) -> Any:
        watch = threading.Timer(timeout or threading.TIMEOUT_MAX, self._expire)
        watch.daemon = True
        watch.start()
        try:
            if message is not None:
                send(cast(Any, self._process.stdin), message)
            reply = receive(cast(Any, self._process.stdout))
        except (EOFError, BrokenPipeError):
            self._is_over()
            self._kill_group()
            self._process.wait()
            raise ChildDied(self._obituary(timeout), self._expired) from None
        except BaseException:
            self.kill()  # what is left of the reply must not be taken for the next one
            raise
        finally:
            watch.cancel()
        if isinstance(reply, GraphoptError):
            raise reply
        return reply

    def _expire(self) -> None:
        self._expired = True
        self._kill_group()

    def _is_over(self, how: int = 0) -> bool:
        """Whether it ended, for which this waits unless `how` is WNOHANG. Until `_process.wait` its number stays its
        own, and its group's."""
        if self._process.returncode is not None:
            return True
        if not hasattr(os, "waitid"):
            # macOS before Python 3.13.
            return (self._process.poll() if how else self._process.wait()) is not None
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | how) is not None

    def _kill_group(self) -> None:
        # Also when the child is dead: what it started would keep our end of the pipe from being closed. Once it was
        # waited for, though, its number may be that of somebody else's group.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _obituary(self, timeout: float | None) -> str:
        if self._expired:
            return f"took longer than {timeout:g} s"
        code = self._process.returncode
        text = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        with self._log.open("rb") as log:
            log.seek(-min(_TAIL, log.seek(0, os.SEEK_END)), os.SEEK_END)
            last = log.read().decode(errors="replace").strip().rpartition("\n")[2][:200]
        return f"{text} ({last})" if last else text


def _environment(tf32: bool) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    # Since 1.29, onnxruntime's Linux builds report model names and hashes to their maker unless told not to; a user who
    # sets the variable himself decides.
    defaults = {"ORT_DISABLE_TELEMETRY": "1", "OPENBLAS_NUM_THREADS": "1"}
    return defaults | os.environ | {"PYTHONPATH": path} | ({} if tf32 else {TF32: "0"})
