"""What a verification says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from graphopt.verify.cuts import Region

Verdict = Literal["equal", "unequal", "inconclusive", "skipped"]
Layer = Literal["structure", "regions", "end-to-end"]

_WORST: tuple[Verdict, ...] = ("unequal", "inconclusive", "skipped", "equal")


@dataclass(frozen=True)
class Options:
    """How to check.

    `dims` binds symbolic dimensions by name; `inputs` is an .npz file, or arrays by input name, to run on; `providers`
    are execution providers, `timeout` seconds for each request to the child process, `memory` bytes that it may
    allocate. `assume` are promises about the inputs: what they rule out is not fed. `level` is `sites` (regions) or
    `full` (regions, then whole models).
    """

    dims: Mapping[str, int] = field(default_factory=dict)
    inputs: Path | Mapping[str, Any] | None = None
    providers: tuple[str, ...] = ("cpu",)
    timeout: float | None = 300.0
    memory: int | None = None
    seed: int = 0
    level: Literal["sites", "full"] = "sites"
    assume: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Comparison:
    """One output, or the output of one region, over all feeds: figures are those of the feed that is furthest off.

    `max_abs` and `rms` are in the output's unit, `max_rel` is relative to the reference's rms, `floor` the noise
    measured, or the least there can be where that is enough, in the same unit as `max_abs`; `ratio` is the error in
    floors, allowed up to `tolerance.K`. None: not defined (no run, not a number, integers).
    """

    name: str
    verdict: Verdict
    max_abs: float | None = None
    max_rel: float | None = None
    rms: float | None = None
    cosine: float | None = None
    floor: float | None = None
    ratio: float | None = None
    feed: str = ""
    reason: str = ""


@dataclass(frozen=True)
class FedInput:
    """One array that a model was run on; `kind` says what it was taken for, `feed` which run it was part of."""

    name: str
    feed: str
    shape: tuple[int, ...]
    dtype: str
    kind: str
    seed: int


@dataclass(frozen=True)
class ProviderResult:
    """Whether runs on an execution provider agreed; `skipped` where it is not installed."""

    name: str
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True)
class Counts:
    """Cut points compared: those equal by structure, those run, and those known from an earlier check."""

    total: int = 0
    free: int = 0
    run: int = 0
    known: int = 0


@dataclass(frozen=True)
class Verification:
    """Whether a candidate computes what the original does, and what says so.

    `decided_by` is the layer that decided; `regions` and `outputs` are figures of the second and third, `failing` the
    regions that are not equal. `seconds` is wall time.
    """

    verdict: Verdict
    decided_by: Layer
    reason: str = ""
    regions: tuple[Comparison, ...] = ()
    outputs: tuple[Comparison, ...] = ()
    failing: tuple[Region, ...] = field(default=(), repr=False)
    inputs: tuple[FedInput, ...] = ()
    providers: tuple[ProviderResult, ...] = ()
    counts: Counts = Counts()
    seconds: float = 0.0


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """unequal before inconclusive before skipped before equal; `equal` when there is nothing to say otherwise."""
    return min(verdicts, key=_WORST.index, default="equal")
