"""What integer kernels the machine has that will run a model."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Literal

Cpu = Literal["x86-vnni", "x86", "arm"]
"""`x86-vnni`: uint8 × int8 sums of four products in 32 bits; `x86`: in 16 bits, which overflow at 8 bits a weight;
`arm`: either sign × int8, sums of four in 32 bits."""

CPUS: tuple[Cpu, ...] = ("x86-vnni", "x86", "arm")
_VNNI = {"avx512_vnni", "avx_vnni", "avx512vnni", "avxvnni"}


@cache
def detected() -> Cpu:
    """The kind of this machine's processor; `x86` where nothing is known of it."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm"
    return "x86-vnni" if _VNNI & _flags() else "x86"


def _flags() -> set[str]:
    """What Linux says that the processor can do; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()[2:]}
