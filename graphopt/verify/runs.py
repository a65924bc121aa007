"""What all checks of one original share: the child process, where its weights lie, and what it is fed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import numpy as np

from graphopt.errors import UsageError, near
from graphopt.ir import Model, Node, Shape, Value
from graphopt.ir.encode import initializers, model_without_weights
from graphopt.ir.infer import infer
from graphopt.runtime import PROVIDERS, RunError, Runner
from graphopt.verify.feeds import MASKS, Feed, Feeder, given_feed
from graphopt.verify.noise import data_values
from graphopt.verify.parts import PartSession
from graphopt.verify.results import Options, ProviderResult
from graphopt.verify.sizes import Binding, check_names, choose
from graphopt.verify.structure import identical
from graphopt.verify.tolerance import DRAWS, epsilon, one_ulp
from graphopt.verify.weights import Weights, reads_files


class Runs:
    """A child process and the feeds of one model, whose types are inferred; a context manager.

    `data` names the values that hold data.
    """

    def __init__(self, model: Model, options: Options) -> None:
        for name in options.providers:
            if name not in PROVIDERS:
                raise UsageError("GO015", f"unknown provider '{name}'", hint=near(name, PROVIDERS))
        check_names(model, options.dims)
        infer(model)
        self.options = options
        self.runner = Runner(timeout=options.timeout, memory=options.memory)
        self.weights = Weights()
        self.data = data_values(model)
        self._model = model
        self._feeds: list[Feed] | None = None
        self._given = given_feed(model, options.inputs) if options.inputs is not None else None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.weights)
        self._stack.enter_context(self.runner)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def providers(self) -> tuple[list[str], list[ProviderResult]]:
        """The providers to run on, and those that are not installed."""
        installed = self.runner.available_providers()
        missing = [name for name in self.options.providers if name not in installed]
        reason = "onnxruntime has no such provider here"
        skipped = [ProviderResult(name, "skipped", reason) for name in missing]
        return [name for name in self.options.providers if name in installed], skipped

    def refusal(self, model: Model) -> str:
        """Why onnxruntime does not load a whole model as it would be written; empty when it does."""
        infer(model)
        proto = model_without_weights(model)
        external = {}
        for name, tensor in initializers(model.graph):
            declared, place = self.weights.declare(name, tensor)
            proto.graph.initializer.append(declared)
            if place is not None:
                external[name] = place
        try:
            serialized = proto.SerializeToString()
            base = model.base if any(map(reads_files, model.graph.ops())) else None
            self.runner.load(serialized, optimize=False, external=external, base=base, name="the whole model").close()
        except RunError as error:
            return error.message
        return ""

    def feeds(self, session: PartSession) -> list[Feed]:
        """The feeds under which `session`, a part of the model, runs.

        Raises: InconclusiveError GO012 where no size of a dimension makes it run, GO017 for inputs that cannot be
        made; RunError where there is nothing to choose and it does not run.
        """
        if self._feeds is None:
            self._feeds = [self._given] if self._given is not None else self._generated(session)
        return self._feeds

    def moved(self, feeds: Mapping[str, Any], session: PartSession, number: int) -> Iterator[dict[str, Any]]:
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

    def _generated(self, session: PartSession) -> list[Feed]:
        feeder = Feeder(self._model, self.options.seed, self.options.assume)

        def attempt(binding: Binding) -> RunError | None:
            return _refusal(session, feeder.feed(MASKS[-1], binding))

        return feeder.feeds(choose(self._model, self.options.dims, attempt))


def _refusal(session: PartSession, feed: Feed) -> RunError | None:
    try:
        session.run(feed.arrays, list(session.part.outputs)[-1:])
    except RunError as error:
        return error
    return None


def interface_difference(original: Model, candidate: Model) -> str:
    """How the two differ for a caller: names, order and element types; defaults and sizes of inputs. Empty if not."""
    for what, before, after in (
        ("inputs", _ports(original, "inputs"), _ports(candidate, "inputs")),
        ("outputs", _ports(original, "outputs"), _ports(candidate, "outputs")),
    ):
        names = [[name for name, _ in ports] for ports in (before, after)]
        if names[0] != names[1]:
            return f"{what} differ: {_listed(names[0])} in the reference, {_listed(names[1])} in the candidate"
        for (name, old), (_, new) in zip(before, after, strict=True):
            if old and new and old != new:
                return f"the type of '{name}' among the {what} differs"
    inputs = {node.output.name: node for node in candidate.graph.inputs}
    pairs = ((node, inputs[node.output.name]) for node in original.graph.inputs if node.op == "Input")
    return next((difference for pair in pairs if (difference := _input_difference(*pair))), "")


def _input_difference(old: Node, new: Node) -> str:
    """How an input of the candidate differs in its default, or in a size that the original leaves open."""
    name, before, after = old.output.name, old.output.shape, new.output.shape
    if (old.data is None) != (new.data is None) or (old.data and new.data and not identical(old.data, new.data)):
        return f"the default of the input '{name}' differs"
    if after is None:
        return ""
    fixed = before is None or len(before) != len(after)
    if fixed or any(isinstance(n, int) and n != m for m, n in zip(before or (), after, strict=False)):
        return f"the input '{name}' is [{_sizes(before)}] in the reference, [{_sizes(after)}] in the candidate"
    return ""


def _sizes(shape: Shape | None) -> str:
    return "..." if shape is None else ", ".join(map(str, shape))


def _ports(model: Model, which: str) -> list[tuple[str, int]]:
    graph = model.graph
    values = [node.output for node in graph.inputs if node.op == "Input"] if which == "inputs" else graph.outputs
    return [(value.name, _declared_type(value)) for value in values]


def _declared_type(value: Value) -> int:
    info = value.info
    return info.type.tensor_type.elem_type if info is not None else value.dtype


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
