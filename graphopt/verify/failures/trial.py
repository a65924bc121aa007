"""Trying a rewrite on a small model: what it makes of it, and how far that is off on given inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from graphopt.errors import GraphoptError
from graphopt.ir import IR_DOMAIN, Model
from graphopt.ir.bodies import settle_opset
from graphopt.ir.infer import infer
from graphopt.passes import remove_dead
from graphopt.rewrite import CompiledRule, Context, Engine, Trace
from graphopt.runtime import Runner
from graphopt.targets import Target
from graphopt.verify.failures.excerpt import excerpt
from graphopt.verify.numbers.measure import worse
from graphopt.verify.pair import CannotRun, Pair
from graphopt.verify.parts import part
from graphopt.verify.results import Comparison, Options
from graphopt.verify.runs import Runs

# Without fused kernels: internal operators are run as their parts.
_PLAIN = Target("plain", 24, "cpu")


Rewriting = Callable[[Model], Trace]
"""Rewrites a model in place."""


@dataclass(frozen=True)
class Trial:
    """Tries `rewrite`; by the rules `lowering` a model with internal operators is one that onnxruntime runs, in the
    child of `runner`."""

    rewrite: Rewriting
    lowering: Sequence[CompiledRule]
    runner: Runner

    def rewritten(self, model: Model) -> Model | None:
        """What becomes of a copy of `model`; None where nothing fires."""
        copy = copied(model)
        trace = self.rewrite(copy)
        remove_dead(copy)
        return copy if trace.sites else None

    def differs(self, model: Model, feed: Mapping[str, Any]) -> Comparison | None:
        """How far the rewrite puts `model` off on `feed`; None where it does not, or where nobody can say."""
        try:
            after = self.rewritten(model)
            found = self.compared(model, after, feed) if after is not None else None
        except (GraphoptError, CannotRun):
            return None
        return found if found is not None and found.verdict == "unequal" else None

    def compared(self, before: Model, after: Model, feed: Mapping[str, Any]) -> Comparison:
        """The outputs of both on `feed`, as a region is compared. A crash of `after` is `unequal`.

        Raises: CannotRun where onnxruntime does not run `before`; GraphoptError where that cannot even be written.
        """
        first, second = self.lowered(before), self.lowered(after)
        with ExitStack() as stack:
            runs = stack.enter_context(Runs(first, Options(), self.runner))
            roots = first.graph.outputs
            original = part(first, roots, runs.weights, noisy=runs.data).load(self.runner, "before")
            stack.callback(original.close)
            original.run(feed)
            try:
                candidate = part(second, second.graph.outputs, runs.weights).load(self.runner, "after")
                stack.callback(candidate.close)
                _, found = Pair(runs, original, candidate).run("", feed, 0)
            except CannotRun as problem:
                if not problem.is_wrong:
                    raise
                return Comparison(roots[0].name, "unequal", reason=f"after: {problem}")
        return worse(found.values())

    def values(self, model: Model, feed: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """The inner values of `model` that are called so, on `feed`. Raises: GraphoptError."""
        plain = self.lowered(model)
        roots = [plain.graph.names[name] for name in names if name in plain.graph.names]
        with ExitStack() as stack:
            runs = stack.enter_context(Runs(plain, Options(), self.runner))
            session = part(plain, roots, runs.weights).load(self.runner, "inner values")
            stack.callback(session.close)
            return session.run(feed)

    def lowered(self, model: Model) -> Model:
        """A copy of `model` that onnxruntime runs: without internal operators, in the opset that its nodes need."""
        copy = copied(model)
        if any(node.domain == IR_DOMAIN for node in copy.graph.ops()):
            Engine(self.lowering, Context(_PLAIN)).run(copy)
            remove_dead(copy)
        settle_opset(copy)
        return copy


def alone(rule: CompiledRule, context: Context) -> Rewriting:
    """`rule` and no other."""

    def rewrite(model: Model) -> Trace:
        engine = Engine([rule], context)
        engine.run(model)
        return engine.trace

    return rewrite


def copied(model: Model) -> Model:
    """A copy with types inferred, to be changed."""
    copy = excerpt(model.graph.outputs, ())
    infer(copy)
    return copy
