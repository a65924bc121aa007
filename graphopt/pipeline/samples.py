"""The batches that quantization calibrates, searches and judges by: the user's, or made up where there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphopt.bench import feeds_for
from graphopt.ir import Model
from graphopt.quantize.data import Batches, calibration_data

_MADE = 4
"""How many batches are made up."""


@dataclass(frozen=True)
class Samples:
    """`calibration` is None where no data was given: then `search` and `holdout` are made up, as `made` says. `notes`
    are sentences for the user."""

    calibration: Batches | None
    search: Batches
    holdout: Batches
    made: bool
    note: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to the data of its own accord; complete when it was read."""
        told = [*self.holdout.notes, self.note]
        told += [f"left out: {error.message} ({error.where})" for error in self.holdout.skipped]
        return tuple(filter(None, told))


def samples_for(model: Model, data: Any, *, batch: int | None, skip_bad: bool, dims: Mapping[str, int]) -> Samples:
    """The batches of `data` (see `calibration_data`), or made up ones where it is None.

    Raises: ModelError for data that is bad or does not fit, InconclusiveError GO017 where none can be made up.
    """
    if data is not None:
        split = calibration_data(data, model, batch, skip_bad).split()
        return Samples(split.calibration, split.search, split.holdout, False, split.note)
    made = [feeds_for(model, dims=dims, shapes={}, seed=seed) for seed in range(_MADE)]
    batches = calibration_data(made, model)
    return Samples(
        None, batches, batches, True, "the accuracy is that on made-up inputs: give --calib for a real figure"
    )
