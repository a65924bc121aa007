"""What a fuzzer tries, and what it says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """One input: a model file, the `files` beside it by name, and how it is tried.

    `feeds` are inputs that it runs on (None: they are made). `flags` are those of `fuse`; `verified` also runs it with
    the verifier on; `also` names other commands to run. A `foreign` model may be refused.
    """

    model: bytes
    origin: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    feeds: Feeds | None = None
    flags: tuple[str, ...] = ()
    verified: bool = False
    also: tuple[str, ...] = ()
    foreign: bool = True


@dataclass(frozen=True)
class Finding:
    """What should not be: `sign` is the same for what has the same cause, as far as can be told; `detail` says more."""

    sign: str
    detail: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of one case: findings, and `facts` that are counted."""

    findings: tuple[Finding, ...] = ()
    facts: tuple[str, ...] = ()
