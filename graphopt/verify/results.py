"""What a verification says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from graphopt.verify.cuts import Region

Verdict = Literal["equal", "unequal", "inconclusive", "skipped"]
Layer = Literal["structure", "regions", "end-to-end"]
Level = Literal["sites", "full"]

ORDER: tuple[Verdict, ...] = ("unequal", "inconclusive", "skipped", "equal")
"""The worst first."""
WHOLE: Final = "the whole model"
"""What a crash is said to be of that is of no region."""


@dataclass(frozen=True)
class Options:
    """How to check.

    `dims` binds symbolic dimensions by name; `inputs` is an .npz file, or arrays by input name, to run on; `providers`
    are execution providers, `timeout` seconds for each request to the child process, `memory` bytes that it may
    allocate. `assume` are promises about the inputs: what they rule out is not fed. `level` is `sites` (regions) or
    `full` (regions, then whole models). `keep` is the folder for what failed; without it only crashes are kept, in a
    temporary one. `custom_ops` are libraries of kernels.
    """

    dims: Mapping[str, int] = field(default_factory=dict)
    inputs: Path | Mapping[str, Any] | None = None
    providers: tuple[str, ...] = ("cpu",)
    timeout: float | None = 300.0
    memory: int | None = None
    seed: int = 0
    level: Literal["sites", "full"] = "sites"
    assume: frozenset[str] = frozenset()
    keep: Path | None = None
    custom_ops: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ProviderResult:
    """Whether runs on an execution provider agreed; `skipped` where it is not there, or its work was done elsewhere."""

    name: str
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """One output, or the output of one region, over all feeds: figures are those of the feed that is furthest off.

    `max_abs` and `rms` are in the output's unit, `max_rel` and `rms_rel` are relative to the reference's rms, `ulp` is
    the largest distance in units in the last place. `floor` is the noise measured, or the least there can be where that
    is enough, in the same unit as `max_abs`; `ratio` is the error in floors, allowed up to `tolerance.K`, and
    `reference_ratio` the reference's own, where both were held against float64. `mismatches` is the share of elements
    beyond the tolerance, `top1` that of rows along the last axis whose largest element is at the same place;
    `same_pattern` says whether NaN and infinities are. None: not defined (no run, not a number, integers). `providers`
    has a line for each where there were several, or where something is to be said of it.
    """

    name: str
    verdict: Verdict
    max_abs: float | None = None
    max_rel: float | None = None
    rms: float | None = None
    cosine: float | None = None
    floor: float | None = None
    ratio: float | None = None
    rms_rel: float | None = None
    ulp: int | None = None
    mismatches: float | None = None
    same_pattern: bool | None = None
    top1: float | None = None
    reference_ratio: float | None = None
    feed: str = ""
    reason: str = ""
    providers: tuple[ProviderResult, ...] = ()


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
class Counts:
    """Cut points compared: those equal by structure, those run, and those known from an earlier check.

    Of those run, `alike` ones ran on one feed only, as one that differs in names and weights alone was equal on all.
    """

    total: int = 0
    free: int = 0
    run: int = 0
    known: int = 0
    alike: int = 0


@dataclass(frozen=True)
class Crashed:
    """onnxruntime died, or was ended, while it ran a part of one `side`: of the region, or the model, called `name`.

    `code` is that of the error (GO051, GO052), `kept` the folder of the case; empty where there were too many.
    """

    name: str
    side: str
    code: str
    message: str
    kept: str


@dataclass(frozen=True)
class Parting:
    """How much of two models is the same, and where they part.

    `same` nodes that the outputs depend on do the same in both, of the `total` of the larger one. `reference` and
    `candidate` are the first nodes, from the inputs on, that do not, `difference` says what differs in them where they
    have one operator, and `value` which values were the first that differed when both were run.
    """

    same: int
    total: int
    reference: str = ""
    candidate: str = ""
    difference: str = ""
    value: str = ""


@dataclass(frozen=True)
class Verification:
    """Whether a candidate computes what the original does, and what says so.

    `decided_by` is the layer that decided; `regions` and `outputs` are figures of the second and third. `compared` are
    the regions that `regions` has figures of, in the same order, `failing` those that are not equal, `unrun` those that
    were left as another took too long, `crashes` what onnxruntime died of on the way. `equal` at the `level` of `sites`
    means that every region is within its own floor, at that of `full` that the outputs are within theirs as well.
    `parting` says where two models part, `hint` what may help where they are not equal. `seconds` is wall time.
    """

    verdict: Verdict
    decided_by: Layer
    reason: str = ""
    regions: tuple[Comparison, ...] = ()
    outputs: tuple[Comparison, ...] = ()
    compared: tuple[Region, ...] = field(default=(), repr=False)
    failing: tuple[Region, ...] = field(default=(), repr=False)
    unrun: tuple[Region, ...] = field(default=(), repr=False)
    crashes: tuple[Crashed, ...] = ()
    inputs: tuple[FedInput, ...] = ()
    providers: tuple[ProviderResult, ...] = ()
    counts: Counts = Counts()
    level: Level = "sites"
    parting: Parting | None = None
    hint: str = ""
    seconds: float = 0.0


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """unequal before inconclusive before skipped before equal; `equal` when there is nothing to say otherwise."""
    return min(verdicts, key=ORDER.index, default="equal")
