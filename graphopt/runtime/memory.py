"""How much memory this process takes, in the child process."""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

from graphopt.runtime.protocol import Memory

_PROC = Path("/proc/self")
_RESET_PEAK = "5"
"""What the kernel takes for "begin the peak anew": proc(5), /proc/pid/clear_refs."""

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_back() -> None:
    """Gives back to the system what was freed, which glibc keeps: of a run of a large model that is hundreds of MB."""
    if _trim is not None:
        _trim(0)


def resident() -> Memory:
    """What is in memory now, without what was freed, and the most since the last call; the peak begins anew.

    Where there is no /proc, both are the most since the process began; where it cannot begin anew, the peak is.
    """
    if not (_PROC / "status").exists():
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return Memory(most, most)
    peak = _status("VmHWM")
    give_back()
    with suppress(OSError):
        (_PROC / "clear_refs").write_text(_RESET_PEAK)
    return Memory(_status("VmRSS"), peak)


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", (_PROC / "status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
