"""Which sizes, and which feeds of those sizes, a model is checked on: those that its original runs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Final

from graphopt.errors import InconclusiveError, RuntimeCrash
from graphopt.ir import Model
from graphopt.runtime import RunError
from graphopt.verify.inputs.feeds import CAUTION, FULL, Feed, Feeder
from graphopt.verify.inputs.sizes import Binding, choose, failing_node, others
from graphopt.verify.parts import Runnable

_OF_DATA: Final = re.compile(r"out of (data )?(bounds|range)|indices|by zero|^onnxruntime crashed", re.IGNORECASE)


class Chooser:
    """Finds the sizes and feeds that one model runs, and remembers them."""

    def __init__(self, model: Model, feeder: Feeder, dims: Binding) -> None:
        self._model = model
        self._feeder = feeder
        self._dims = dims
        self._bindings: list[Binding] = []
        self._feeds: dict[bool, list[Feed]] = {}

    def feeds(self, session: Runnable, thorough: bool) -> list[Feed]:
        """The feeds under which `session`, a part of the model, runs: few, or those that show everything.

        Raises: InconclusiveError GO012 where no size of a dimension makes it run, GO017 for inputs that cannot be made
        or of which the range cannot be told; RunError and RuntimeCrash where there is nothing to choose and it fails.
        """
        if thorough not in self._feeds:
            self._feeds[thorough] = self._run(session, thorough)
        return self._feeds[thorough]

    def _run(self, session: Runnable, thorough: bool) -> list[Feed]:
        if not self._bindings:
            self._bindings = self._chosen(session)
        bindings = list(self._bindings)
        groups = (self._running(session, group) for group in others(self._model, self._dims, bindings))
        if not thorough:
            feeds = self._feeder.feeds(bindings)
            # Where everything is 1, what is squeezed or broadcast goes another way.
            feeds += [self._feeder.feed(FULL, one, len(feeds)) for one in next(groups, [])]
            return _those_that_run(session, feeds)
        bindings += itertools.chain.from_iterable(groups)
        return _those_that_run(session, self._feeder.all_feeds(bindings))

    def _running(self, session: Runnable, group: Sequence[Binding]) -> list[Binding]:
        """The first of `group` under which the model runs, if there is one."""
        running = (one for one in group if _refusal(session, self._feeder.feed(FULL, one)) is None)
        return list(itertools.islice(running, 1))

    def _chosen(self, session: Runnable) -> list[Binding]:
        """The sizes, with as little caution about what inputs hold as there need be."""
        first: InconclusiveError | RunError | None = None
        for caution in range(CAUTION + 1):
            self._feeder.caution = caution
            try:
                return choose(self._model, self._dims, lambda one: self._attempt(session, one))
            except (InconclusiveError, RunError) as error:
                if error.code == "GO017":
                    raise
                first = first or error
        assert first is not None
        _raise_crash(first)
        asked = self._asked(first)
        raise asked from (first if asked is not first else first.__cause__)

    def _attempt(self, session: Runnable, binding: Binding) -> RunError | None:
        """Why the model does not run with these sizes. What speaks of its data alone is tried with more caution."""
        first = error = _refusal(session, self._feeder.feed(FULL, binding))
        before = self._feeder.caution
        while error is not None and _OF_DATA.search(error.message) and self._feeder.caution < CAUTION:
            self._feeder.caution += 1
            error = _refusal(session, self._feeder.feed(FULL, binding))
        if error is not None:
            self._feeder.caution = before
        return first if error is not None else None

    def _asked(self, error: InconclusiveError | RunError) -> InconclusiveError | RunError:
        """The error that asks for the input by name, where what refuses to run reads one whose range is not known."""
        cause = error.__cause__ if isinstance(error.__cause__, RunError) else error
        reason = self._feeder.why(*failing_node(cause.message))
        if not reason:
            return error
        where, hint = str(self._model.path or "model"), "give real inputs with --inputs FILE.npz"
        return InconclusiveError("GO017", f"{reason} ({_brief(cause)})", where, hint)


def _brief(error: InconclusiveError | RunError) -> str:
    """What onnxruntime said at last, without what it says before that."""
    said = error.message.rpartition("Status Message: ")[2].splitlines()[0]
    return said.rpartition(" was false. ")[2]


class _Died(RunError):
    """onnxruntime died of a feed, which may be that of the feed alone."""

    def __init__(self, crash: RuntimeCrash) -> None:
        super().__init__("run", "CRASH", crash.message, crash.where)
        self.crash = crash


def _raise_crash(error: BaseException | None) -> None:
    """Raises the crash that an error is due to, if it is due to one."""
    while error is not None:
        if isinstance(error, _Died):
            raise error.crash
        error = error.__cause__


def _those_that_run(session: Runnable, feeds: Sequence[Feed]) -> list[Feed]:
    return [feed for feed in feeds if not feed.risky or _refusal(session, feed) is None]


def _refusal(session: Runnable, feed: Feed) -> RunError | None:
    """Why a part does not run on a feed: an integer division by zero, for one, ends the process."""
    try:
        session.run(feed.arrays, list(session.part.outputs)[-1:])
    except RunError as error:
        return error
    except RuntimeCrash as error:
        if error.code != "GO051":
            raise
        return _Died(error)
    return None
