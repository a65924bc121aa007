"""Calibration data: batches that are read one at a time, checked, and split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Final

import numpy as np

from graphopt.errors import GraphoptError, ModelError, RuntimeCrash
from graphopt.ir import Model
from graphopt.quantize.data.checked import Checker
from graphopt.quantize.data.sources import Source, source_of
from graphopt.runtime import RunError

_PARTS: Final = 4
"""What a split counts by: of four batches, two are for calibration, one each for search and hold-out."""


@dataclass(frozen=True, eq=False)
class Batch:
    """One run's inputs: `number` is its place in the data, from 0, `name` what errors call it."""

    number: int
    name: str
    feeds: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """A hash of names, types, shapes and numbers, the same on every machine."""
        digest = hashlib.blake2b(digest_size=16)
        for name, value in sorted(self.feeds.items()):
            _digest(digest, name, value)
        return digest.hexdigest()


class Batches:
    """The batches of some data, in their order; iterating reads them anew, one at a time.

    `skip_bad` says that a bad batch is left out, and listed in `skipped`; without, it raises. Iterating raises
    ModelError: GO024 and GO115 for what cannot be read, GO116 for what does not fit the model, GO117 for what is empty
    or not finite, GO118 where there is no batch, GO119 for a Python file that fails.
    """

    def __init__(
        self,
        source: Source,
        checker: Checker,
        skip_bad: bool = False,
        skipped: dict[int, GraphoptError] | None = None,
        places: tuple[int, ...] = tuple(range(_PARTS)),
    ) -> None:
        self.where = source.where
        self.skip_bad = skip_bad
        self._source = source
        self._checker = checker
        self._skipped: dict[int, GraphoptError] = {} if skipped is None else skipped
        self._places = places
        self._ended = source.size

    @property
    def size(self) -> int | None:
        """How many batches there are, bad ones among them; None where that is known only at the end of a pass."""
        known = self._ended
        return None if known is None else sum(number % _PARTS in self._places for number in range(known))

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what was done to the data of its own accord; all parts of a split share them."""
        return self._checker.notes

    @property
    def skipped(self) -> tuple[GraphoptError, ...]:
        """Why batches were left out, in their order; all parts of a split share them."""
        return tuple(self._skipped[number] for number in sorted(self._skipped))

    def __iter__(self) -> Iterator[Batch]:
        count = 0
        number = -1
        for number, (name, given) in enumerate(self._source.items()):
            if number % _PARTS in self._places and number not in self._skipped:
                batch = self._batch(number, name, given)
                if batch is not None:
                    count += 1
                    yield batch
        self._ended = number + 1
        if not count:
            raise self.none()

    def none(self) -> ModelError:
        """The error where no batch is left."""
        hint = f"bad ones that were left out: {len(self._skipped)}" if self._skipped else ""
        return ModelError("GO118", "there is no batch to calibrate on, or to judge by", self.where, hint)

    def skip(self, number: int, error: GraphoptError) -> None:
        """Leaves a batch out from here on, because of `error`; without `skip_bad` it raises that."""
        if not self.skip_bad:
            raise error
        self._skipped[number] = error

    @contextmanager
    def running(self, batch: Batch) -> Iterator[None]:
        """Runs `batch` in a with block: where the model does not run on it, it is left out as by `skip`."""
        where = f"{self.where}: {batch.name}"
        try:
            yield
        except RunError as error:
            self.skip(batch.number, RunError(error.phase, error.status, error.message, where))
        except RuntimeCrash as error:
            self.skip(batch.number, RuntimeCrash(error.code, error.message, where, error.hint))

    def split(self) -> Split:
        """What is calibrated on, searched on, and judged by: half of the batches and a quarter each, by their places.

        Fewer than four batches serve all three, as do those of which a quarter has only bad ones. Reads each part up to
        its first good batch.
        """
        count = sum(1 for _ in islice(iter(self), _PARTS))
        parts = self._part(0, 2), self._part(1), self._part(3)
        if count == _PARTS and all(part._has_any for part in parts):
            return Split(*parts)
        told = {1: "there is only one batch", _PARTS: "there are too few good batches"}
        note = f"{told.get(count, f'there are only {count} batches')} of data: "
        note += f"calibration, search and hold-out are the same ({_PARTS} are needed to tell apart)"
        return Split(self, self, self, note)

    @property
    def _has_any(self) -> bool:
        try:
            return next(iter(self), None) is not None
        except ModelError as error:
            if error.code != "GO118":
                raise
            return False

    def _part(self, *places: int) -> Batches:
        return Batches(self._source, self._checker, self.skip_bad, self._skipped, places)

    def _batch(self, number: int, name: str, given: Mapping[str, Any] | ModelError) -> Batch | None:
        try:
            if isinstance(given, ModelError):
                raise given
            return Batch(number, name, self._checker.checked(given, f"{self.where}: {name}"))
        except ModelError as error:
            self.skip(number, error)
            return None


@dataclass(frozen=True)
class Split:
    """Batches for three purposes; `note` says so where they are the same."""

    calibration: Batches
    search: Batches
    holdout: Batches
    note: str = ""


def calibration_data(source: Any, model: Model, batch: int | None = None, skip_bad: bool = False) -> Batches:
    """The batches of `source`, checked against the inputs of `model`, whose types are inferred.

    `source` is the path of an .npz file or a dict (one array for each input, samples along the first axis, `batch` of
    them at a time; None: one, or as many as the model takes), of a folder of .npz files (each one batch, by name; sizes
    may differ), of a Python file with a function `batches()` that yields dicts of arrays, an iterable of such dicts
    that can be read again, or a function that returns one.

    Raises: ModelError GO024, GO115, GO116, GO119 for what cannot be used at all; what iterating raises see `Batches`.
    """
    found = source_of(source, model, batch)
    return Batches(found, Checker(model, found.notes), skip_bad)


def _digest(digest: hashlib.blake2b, name: str, value: Any) -> None:
    if isinstance(value, list):
        digest.update(f"[{name}:{len(value)}".encode())
        for item in value:
            _digest(digest, "", item)
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"({name}:{value.dtype}:{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    else:
        digest.update(f"({name}:{np.asarray(value).tolist()!r}".encode())
