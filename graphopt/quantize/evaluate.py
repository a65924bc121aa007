"""The metric of candidates over batches; what the float model gives is computed once."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from graphopt.errors import ModelError
from graphopt.quantize.data.batches import Batch, Batches
from graphopt.quantize.data.padding import Mask
from graphopt.quantize.metric import OWN_METRIC, Metric, Outputs, Samples, Score
from graphopt.runtime import Runner
from graphopt.runtime.scratch import temporary_files

_CANDIDATE = "the quantized model"
"""What errors call a candidate: its file is gone when they are read."""

_FLOATS = re.compile(r"tensor\((float|double|float16)\)")


_PACKED = {"session.disable_prepacking": "0"}
"""As kernels read their weights when the model is optimized: MatMulNBits rounds activations only then."""


class Evaluator:
    """Scores models against the float model, whose session is created without onnxruntime's optimizer.

    The float model's outputs lie in a temporary folder, one file for each batch, so memory does not grow with their
    number. What stands at places that are padding, as `padding` says of outputs, does not count: models compute
    anything there. Errors call the float model `name`. A context manager; while it is open, `session` is that of the
    float model.
    """

    def __init__(
        self,
        runner: Runner,
        reference: Path,
        metric: Metric,
        threads: int,
        padding: Mapping[str, Mask] | None = None,
        name: str = "",
    ) -> None:
        self._runner = runner
        self._reference = reference
        self._metric = metric
        self._threads = threads
        self._padding = padding or {}
        self._name = name or str(reference)
        self._known: dict[str, tuple[Path, Samples]] = {}
        self._names: list[str] = []

    def __enter__(self) -> Self:
        """Raises: what `Runner.load` raises, ModelError GO143 where the model has no output for the metric."""
        self.session = self._runner.load(self._reference, optimize=False, threads=self._threads, name=self._name)
        if self._metric.best is not None and not any(_FLOATS.match(port.type) for port in self.session.outputs):
            message = f"no output is of floating-point numbers, which {self._metric.name} compares"
            raise ModelError("GO143", message, self._name, OWN_METRIC)
        with temporary_files():
            folder = self._runner.folder
            self._folder = tempfile.TemporaryDirectory(prefix="outputs-", dir=folder, ignore_cleanup_errors=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.session.close()
        self._folder.cleanup()

    def score(self, candidate: Path, split: str, batches: Batches) -> Score:
        """The metric of `candidate`, in onnxruntime's default session, over `batches`, those of a split of that name.

        A batch that does not run is left out where `batches.skip_bad` says so. Raises: RunError and RuntimeCrash, with
        the name of the batch, ModelError GO143 without a sample, and what iterating over `batches` raises.
        """
        values: Samples = []
        best: Samples = []
        ran = 0
        with self._runner.load(candidate, optimize=True, threads=self._threads, name=_CANDIDATE) as session:
            for batch in batches:
                with batches.running(batch):
                    reference, own = self._float(f"{split}-{batch.number}", batch)
                    values += self._measured(reference, session.run(batch.feeds), batch)
                    best += own
                    ran += 1
        if not ran:
            raise batches.none()
        return Score.of(self._metric, values, best)

    def unoptimized(self, candidate: Path, batches: Iterable[Batch]) -> float:
        """The metric between `candidate` with onnxruntime's optimizer and without it."""
        values: Samples = []
        with (
            self._runner.load(candidate, optimize=True, threads=self._threads, name=_CANDIDATE) as session,
            self._runner.load(
                candidate, optimize=False, threads=self._threads, name=_CANDIDATE, entries=_PACKED
            ) as plain,
        ):
            for batch in batches:
                values += self._measured(plain.run(batch.feeds), session.run(batch.feeds), batch)
        return self._metric.mean(values) if values else float("nan")

    def _measured(self, reference: Outputs, candidate: Outputs, batch: Batch) -> Samples:
        return self._metric.measure(self._unpadded(reference, batch), self._unpadded(candidate, batch), batch.feeds)

    def _unpadded(self, outputs: Outputs, batch: Batch) -> Outputs:
        """The outputs, with zeros where there is padding."""
        found = dict(outputs)
        for name, mask in self._padding.items():
            array = outputs.get(name)
            kept = mask.kept(batch.feeds, array.shape) if isinstance(array, np.ndarray) else None
            if kept is not None and array is not None:
                found[name] = np.where(kept.reshape(*kept.shape, *[1] * (array.ndim - kept.ndim)), array, 0)
        return found

    def _float(self, name: str, batch: Batch) -> tuple[Outputs, Samples]:
        """What the float model gives, and its own metric."""
        if name not in self._known:
            outputs = self.session.run(batch.feeds)
            kept = {key: value for key, value in outputs.items() if isinstance(value, np.ndarray)}
            path = Path(self._folder.name) / f"{len(self._known)}.npz"
            with temporary_files():
                np.savez(path, *kept.values())
            self._known[name] = path, self._measured(outputs, outputs, batch)
            self._names = list(kept)
        path, own = self._known[name]
        with np.load(path, allow_pickle=True) as stored:
            return {key: stored[f"arr_{index}"] for index, key in enumerate(self._names)}, own
