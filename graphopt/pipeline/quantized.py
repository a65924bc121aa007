"""What `quantize` gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from graphopt.bench.paired import Ratio
from graphopt.errors import GraphoptError
from graphopt.ir import Model
from graphopt.ir.save import Saved
from graphopt.verify import Verdict, Verification

Mode = Literal["auto", "dynamic", "static", "weight-only", "float16"]


@dataclass(frozen=True)
class SiteResult:
    """One product with constant weights, in the order of the graph.

    `name` is the value that it makes, `op` the operator, `group` names the sites that were decided together, `scheme`
    what was decided (`static`, `dynamic`, `weights8`, `weights4`, `float16`, `float`), with `reason` where it is not
    what was asked for. `kernel` is the operator that ran (`com.microsoft.MatMulIntegerToFloat`), `integer` whether it
    computes with integers; `kernel_reason` says why not. `sensitivity` is how much of the metric the group costs: the
    metric with the group in float less that without. `shape` is that of the weights, `macs` the multiplications of one
    row, `micros` the time of the kernel in the profiled run, `smooth` the exponent α of smoothing, None without.
    """

    name: str
    op: str
    group: str
    scheme: str
    shape: tuple[int, ...]
    macs: int
    reason: str = ""
    kernel: str = ""
    integer: bool = False
    kernel_reason: str = ""
    micros: float = 0.0
    sensitivity: float | None = None
    smooth: float | None = None
    range: tuple[float, float] | None = None
    """The calibrated range of the activation, of scheme `static`."""


@dataclass(frozen=True)
class Accuracy:
    """The metric between the float model and the quantized one, on the batches that were searched on (`search`; None
    where nothing was searched) and on batches that nothing was chosen by (`holdout`).

    `worst` is the least of any sample of the hold-out split, `samples` how many it has. `made` says that no data was
    given: the samples are made up. `unoptimized` is the metric between onnxruntime's default session and one without
    its optimizer, both of the quantized model.
    """

    metric: str
    holdout: float
    worst: float
    samples: int
    search: float | None = None
    made: bool = False
    unoptimized: float | None = None


@dataclass(frozen=True)
class Step:
    """One candidate that the search tried: what was changed (`ffn.down → weights8`), the metric and whether it was
    kept."""

    change: str
    metric: float
    kept: bool


@dataclass(frozen=True)
class Quantized:
    """A quantized model and what is known of it.

    `verdict` is that of the float rewrites beneath: `verification` has the figures. `latency` is CPU time relative to
    the original, one thread, `latency_wall` wall time; None where nothing was timed. `integer_planned`, `_running`,
    `_all` count products with constant weights: planned as integers, on integer kernels, all there are. `size_before`
    and `size_after` are bytes with external data. `notes` are sentences for the user: what was done of the tool's own
    accord. `errors` stand against the model; with any, nothing was written, unless `best_effort` allowed it.
    """

    model: Model
    source: str
    output: Path | None
    target: str
    cpu: str
    mode: Mode
    verdict: Verdict
    sites: tuple[SiteResult, ...]
    integer_planned: int
    integer_running: int
    integer_all: int
    accuracy: Accuracy | None
    size_before: int
    size_after: int
    latency: Ratio | None
    latency_wall: Ratio | None
    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    verification: Verification | None
    seconds: dict[str, float]
    errors: tuple[GraphoptError, ...] = ()
    observer: str = ""
    samples: dict[str, int] = field(default_factory=dict)
    """How many batches served what: `calibration`, `search`, `holdout`."""
    saved: Saved | None = None
    """The files that belong to `output`."""

    @property
    def integer_share(self) -> float:
        """The share of products with constant weights that ran on integer kernels; 0 where there is none."""
        return self.integer_running / self.integer_all if self.integer_all else 0.0

    @property
    def error(self) -> GraphoptError | None:
        """The first of the errors: what the exit code is about."""
        return next(iter(self.errors), None)
