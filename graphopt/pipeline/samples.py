"""The batches that quantization calibrates, searches and judges by: the user's, or made up where there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from graphopt.bench import feeds_for
from graphopt.bench.feeds import LENGTHS
from graphopt.errors import InconclusiveError, RuntimeCrash
from graphopt.ir import Model
from graphopt.quantize.data.batches import Batches, calibration_data
from graphopt.runtime import RunError, Session
from graphopt.verify.inputs.chosen import Chooser
from graphopt.verify.inputs.feeds import Feeder
from graphopt.verify.pair import OVERTIME
from graphopt.verify.parts import Part, PartSession

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


def samples_for(
    model: Model, data: Any, session: Session, *, batch: int | None, skip_bad: bool, dims: Mapping[str, int]
) -> Samples:
    """The batches of `data` (see `calibration_data`), or made up ones, that `session`, the model, runs, where it is
    None.

    Raises: ModelError for data that is bad or does not fit, UsageError GO016 for a dimension that no input has,
    InconclusiveError GO012 where no sizes make the model run, GO017 where no inputs can be made up.
    """
    if data is not None:
        split = calibration_data(data, model, batch, skip_bad).split()
        return Samples(split.calibration, split.search, split.holdout, False, split.note)
    try:
        made = _made(model, session, dims)
    except InconclusiveError as error:
        hint = error.hint if "--dim" in error.hint else "give real inputs with --calib DATA"
        raise InconclusiveError(error.code, error.message, error.where, hint) from error
    batches = calibration_data(made, model)
    return Samples(
        None, batches, batches, True, "the accuracy is that on made-up inputs: give --calib for a real figure"
    )


def _made(model: Model, session: Session, dims: Mapping[str, int]) -> list[Mapping[str, Any]]:
    """Feeds that the model runs: of the usual lengths, or of whatever sizes are found for it."""
    make = partial(feeds_for, model, dims=dims, shapes={})
    for length in LENGTHS:
        try:
            session.run(make(length=length))
        except (RunError, RuntimeCrash) as error:
            if error.code == OVERTIME:
                raise
            continue
        return [make(length=length, seed=seed) for seed in range(_MADE)]
    inputs = frozenset(port.name for port in session.inputs)
    ports = Part(inputs=inputs, outputs={port.name: port.name for port in session.outputs})
    found = Chooser(model, Feeder(model, 0), dims).feeds(PartSession(session, ports), thorough=False)
    return [feed.arrays for feed in found]
