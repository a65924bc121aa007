"""Calibration: one pass over the data that keeps statistics of activations, and no activation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, Protocol

import numpy as np

from graphopt.quantize.data.batches import Batch, Batches
from graphopt.quantize.data.padding import Mask
from graphopt.quantize.observe.cache import Cache
from graphopt.quantize.observe.statistics import Statistics

MOST_BYTES: Final = 256 << 20
"""Bytes of activations that are held at once, where one of them is not larger."""

_CAUTION: Final = 4
"""How many times as large as any value seen one not seen yet may be."""

Progress = Callable[[str, int, int | None], None]
"""What is done, how many of how many (None: nobody knows)."""


@dataclass(frozen=True)
class Wanted:
    """What to observe of a value: channels along `axis` (None: it is one channel as a whole), whether with a Gram
    matrix, and the mask that says which of its places are padding."""

    axis: int | None = -1
    gram: bool = False
    mask: Mask | None = None


class Tap(Protocol):
    """A model whose outputs are what is observed: a `Session`, or a `PartSession` of `graphopt.verify.parts`."""

    def run(self, feeds: Mapping[str, Any], outputs: list[str]) -> dict[str, Any]:
        """Runs once; only what `outputs` need is computed."""
        ...


def calibrate(
    tap: Tap,
    wanted: Mapping[str, Wanted],
    batches: Batches,
    *,
    progress: Progress | None = None,
    cache: Cache | None = None,
    most_bytes: int = MOST_BYTES,
) -> dict[str, Statistics]:
    """The statistics of each value of `wanted` over all batches, in one pass.

    Memory does not grow with the number of batches: outputs are asked for in groups of at most `most_bytes`. With a
    `cache`, the data is read once more before, to know it by its contents. A batch that the model does not run on is
    left out where `batches.skip_bad` says so, and listed there.

    Raises: RunError GO055 and RuntimeCrash for a batch that does not run, with its name; ModelError as `Batches` and
    `Statistics.of`.
    """
    keys = [batch.key for batch in batches] if cache is not None else []
    total = len(keys) if cache is not None else batches.size
    path = cache.path(wanted, keys) if cache is not None else None
    found, done = cache.read(path, wanted) if cache is not None and path is not None else ({}, 0)
    run = _Run(tap, wanted, most_bytes, found)
    is_known = True
    for count, batch in enumerate(batches, 1):
        if count > done:
            ran = run.observe(batch, batches)
            is_known = is_known and ran and keys[count - 1 : count] == [batch.key]
            if cache is not None and path is not None and is_known and (count % cache.every == 0 or count == total):
                cache.write(path, run.found, count)
        if progress is not None:
            progress("calibrating", count, total)
    return run.found


@dataclass
class _Run:
    """A pass: what was found so far, and how many bytes values take for each element that is fed."""

    tap: Tap
    wanted: Mapping[str, Wanted]
    most_bytes: int
    found: dict[str, Statistics]
    sizes: dict[str, float] = field(default_factory=dict)

    def observe(self, batch: Batch, batches: Batches) -> bool:
        """Adds a batch; False where it does not run and is left out. Raises: what `calibrate` raises."""
        ran = False
        with batches.running(batch):
            for names in self._groups(batch):
                values = self.tap.run(batch.feeds, names)
                for name in names:
                    self._add(name, values.pop(name), batch)
            ran = True
        return ran

    def _add(self, name: str, value: Any, batch: Batch) -> None:
        self.sizes[name] = max(self.sizes.get(name, 0), np.asarray(value).nbytes / _elements(batch))
        wanted = self.wanted[name]
        kept = wanted.mask.kept(batch.feeds, np.shape(value)) if wanted.mask is not None else None
        seed = int(batch.key[:16], 16)
        if wanted.axis is None:
            one = Statistics.of(np.reshape(value, (-1, 1)), -1, seed)
        else:
            one = Statistics.of(value, wanted.axis, seed, wanted.gram, kept)
        self.found[name] = self.found[name].merge(one) if name in self.found else one

    def _groups(self, batch: Batch) -> Iterator[list[str]]:
        """The names in groups; the first batch, of which no size is known, begins with one alone."""
        left = list(self.wanted)
        while left:
            guess = _CAUTION * max(self.sizes.values(), default=self.most_bytes)
            ends = accumulate(self.sizes.get(name, guess) * _elements(batch) for name in left)
            size = max(1, sum(end <= self.most_bytes for end in ends))
            yield left[:size]
            left = left[size:]


def _elements(batch: Batch) -> int:
    return max(1, sum(np.size(value) for value in batch.feeds.values() if isinstance(value, np.ndarray)))
