"""What all checks of one original share: the child process, where its weights lie, and what it is fed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np

from graphopt.errors import UsageError
from graphopt.ir import Model
from graphopt.ir.infer import infer
from graphopt.runtime import PROVIDERS, RunError, Runner
from graphopt.verify.inputs.chosen import Chooser
from graphopt.verify.inputs.feeds import Feed, Feeder
from graphopt.verify.inputs.given import given_feed
from graphopt.verify.inputs.sizes import check_names
from graphopt.verify.noise import data_values
from graphopt.verify.numbers.tolerance import DRAWS, epsilon, one_ulp
from graphopt.verify.parts import Runnable
from graphopt.verify.random_ops import Seeds
from graphopt.verify.results import Options, ProviderResult
from graphopt.verify.weights import Weights


def check_options(model: Model, options: Options) -> Feed | None:
    """Looks whether `options` fit `model`; returns the inputs that they give. Raises: UsageError, ModelError GO024."""
    for name in options.providers:
        if name not in PROVIDERS:
            raise UsageError("GO015", f"unknown provider '{name}'", hint=f"known: {', '.join(PROVIDERS)}")
    check_names(model, options.dims)
    return given_feed(model, options.inputs, options.dims) if options.inputs is not None else None


class Runs:
    """A child process and the feeds of one model, whose types are inferred; a context manager.

    `data` names the values that hold data. With a `runner` that is open, its child runs everything, and it stays open.
    `seeds` are what random nodes draw by.
    """

    def __init__(self, model: Model, options: Options, runner: Runner | None = None) -> None:
        self._given = check_options(model, options)
        infer(model)
        self.options = options
        self.runner = runner or Runner(timeout=options.timeout, memory=options.memory, custom_ops=options.custom_ops)
        self._lent = runner is not None
        self.weights = Weights(self.runner)
        self.data = data_values(model)
        self.seeds = Seeds(model)
        self._model = model
        self._candidate: Model | None = None
        self._chooser: Chooser | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if not self._lent:
            self._stack.enter_context(self.runner)
        self._stack.enter_context(self.weights)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    @property
    def is_given(self) -> bool:
        """Whether the inputs are the user's own."""
        return self._given is not None

    def seed(self, candidate: Model) -> None:
        """From now on `seeds` make the candidate draw the numbers that the model draws; feeds are chosen for both."""
        self._candidate = candidate
        self.seeds = Seeds(self._model, candidate)

    def providers(self) -> tuple[list[str], list[ProviderResult]]:
        """The providers to run on, and those that are not installed or do not start."""
        installed = self.runner.available_providers()
        missing = [name for name in self.options.providers if name not in installed]
        reason = "onnxruntime has no such provider here, or it does not start"
        skipped = [ProviderResult(name, "skipped", reason) for name in missing]
        return [name for name in self.options.providers if name in installed], skipped

    def refusal(self, model: Model) -> str:
        """Why onnxruntime does not load a whole model as it would be written; empty when it does."""
        infer(model)
        serialized, external, base = self.weights.whole(model)
        try:
            self.runner.load(serialized, optimize=False, external=external, base=base, name="the whole model").close()
        except RunError as error:
            return error.message
        return ""

    def feeds(self, session: Runnable, thorough: bool = False) -> list[Feed]:
        """The feeds under which `session`, a part of the model, runs: few, for regions, or `thorough` ones.

        Raises: what `Chooser.feeds` raises.
        """
        if self._given is not None:
            return [self._given]
        if self._chooser is None:
            feeder = Feeder(self._model, self.options.seed, self.options.assume, self._candidate)
            self._chooser = Chooser(self._model, feeder, self.options.dims)
        return self._chooser.feeds(session, thorough)

    def moved(self, feeds: Mapping[str, Any], session: Runnable, number: int) -> Iterator[dict[str, Any]]:
        """`feeds`, small weights and gains of the part, moved by one ulp: `DRAWS` times, the same in every run."""
        part = session.part
        for draw in range(DRAWS):
            rng = np.random.default_rng([self.options.seed, number, draw])
            values = {**{name: feeds[name] for name in sorted(feeds)}, **part.weights}
            moved = {name: one_ulp(v, rng) if isinstance(v, np.ndarray) else v for name, v in values.items()}
            signs = rng.choice([-1.0, 1.0], len(part.gains))
            for (name, one), sign in zip(part.gains.items(), signs, strict=True):
                moved[name] = (one + sign * epsilon(one)).astype(one.dtype)
            yield moved
