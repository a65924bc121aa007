"""The child process: `python -m graphopt.runtime.worker SCRATCH MEMORY`.

It answers requests on the pipe it was started with, one at a time, until the pipe closes. `SCRATCH` is a folder for
its temporary files, `MEMORY` a limit in bytes on what it may allocate (0: none). Whatever the runtime prints goes to
standard error.
"""

from __future__ import annotations

import os
import resource
import select
import shutil
import signal
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from graphopt.errors import GraphoptError
from graphopt.runtime.protocol import Unavailable, receive, send

MOST_WRITTEN = 4 << 30
"""Bytes of the largest file that this process may write, such as what the runtime prints, before it is ended."""


def main() -> None:
    scratch, memory = Path(sys.argv[1]), int(sys.argv[2])
    requests, replies = _claim_pipes()
    watch = _watch_parent(requests.fileno(), scratch)
    _limit(memory)
    try:
        _serve(scratch, requests, replies)
    except (EOFError, BrokenPipeError):
        # The parent is gone. What watches it removes the files, and ends this process: not before it is done.
        watch.join()


def _serve(scratch: Path, requests: BinaryIO, replies: BinaryIO) -> None:
    """Answers requests. Raises: EOFError, BrokenPipeError where nobody is there to ask, or to be told."""
    try:
        from graphopt.runtime.sessions import Sessions
    except ImportError as error:
        send(replies, _not_installed(error))
        return
    sessions = Sessions(scratch)
    send(replies, sessions.hello())
    while True:
        verb, arguments = receive(requests)
        send(replies, _answer(sessions, verb, arguments))


def _answer(sessions: Any, verb: str, arguments: tuple[Any, ...]) -> object:
    try:
        return getattr(sessions, verb)(*arguments)
    except GraphoptError as error:
        return error
    except Exception:
        return GraphoptError("GO059", f"the runtime's worker failed at '{verb}':\n{traceback.format_exc()}")


def _claim_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Move the protocol off standard input and output: native code prints there."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    return requests, replies


def _watch_parent(pipe: int, scratch: Path) -> threading.Thread:
    """End this process as soon as the parent is gone, even in the middle of a run, and leave no file behind."""
    parent = os.getppid()

    def watch() -> None:
        poll = select.poll()
        poll.register(pipe, 0)  # hang-up is always reported
        # The second condition serves a pipe whose writing end was inherited by another child of the parent.
        while not poll.poll(1000) and os.getppid() == parent:
            pass
        for _ in range(3):  # what still runs here may write a file into a folder that is just being removed
            shutil.rmtree(scratch, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)  # with what was started here: the parent made this process the leader of a group

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def _limit(memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_WRITTEN, MOST_WRITTEN))
    with suppress(ValueError, OSError):
        # Each weight that is mapped holds a descriptor, and the usual limit is 1024.
        most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    with suppress(OSError):
        # Where memory ends, the system is to end this process, not the parent.
        Path("/proc/self/oom_score_adj").write_text("1000")
    # What takes more than the machine has would only swap.
    most = memory or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(ValueError):  # a lower limit is set already
        # Not RLIMIT_AS: it would count weights mapped read-only and address space that is only reserved.
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _not_installed(error: ImportError) -> Unavailable:
    hint = "pip install graphopt[cpu], or graphopt[cuda] for NVIDIA GPUs"
    return Unavailable("GO050", f"onnxruntime cannot be imported: {error}", hint=hint)


if __name__ == "__main__":
    main()
