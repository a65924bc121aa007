"""The stages in order: clean, recover, fuse, quantize, lower."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from graphopt.ir import Model
from graphopt.ir.bodies import settle_opset, withdraw_bodies
from graphopt.ir.collector import collector_off
from graphopt.ir.infer import infer
from graphopt.ir.node import IR_DOMAIN, qualified
from graphopt.ir.versions import can_raise
from graphopt.passes import (
    choose_branches,
    fold_constants,
    hold_trained,
    inline_functions,
    merge_common,
    remove_dead,
    simplify_shapes,
    spell_constants,
)
from graphopt.passes.fold_budget import Budget
from graphopt.pipeline.observation import Observer
from graphopt.rewrite import CompiledRule, Context, Engine, Limits, Plan, Trace
from graphopt.rewrite.engine import NewWeightsLimit, SiteKey
from graphopt.rewrite.rule import STAGES, Stage
from graphopt.targets import Target, without

Progress = Callable[[str, int, int], None]
"""Called with (stage, how many stages are done, how many there are)."""

ASSUMPTIONS = {"no-empty-rows": "no row of an attention is fully masked"}
"""Promises about inputs that a rule may ask for."""

# Each round can enable the next; exporters nest about three deep, and a round that changes nothing ends the loop.
_ROUNDS = 8


def optimized(fresh: Callable[[], Model], *, rules: Sequence[CompiledRule], **options: Any) -> tuple[Model, Trace]:
    """`optimize` on a fresh model; a rule that would write too many new weights, or what cannot be lowered, is left out
    whole.

    `options` are those of `optimize`.
    """
    left_out: dict[str, str] = {}
    while True:
        model = fresh()
        try:
            trace = optimize(model, rules=[rule for rule in rules if rule.name not in left_out], **options)
        except NewWeightsLimit as limit:
            left_out[limit.rule] = limit.message
            continue
        stuck = _not_lowered(model, trace) - left_out.keys()
        if not stuck:
            trace.left_out |= left_out
            return model, trace
        left_out |= dict.fromkeys(
            stuck, "no rule that is asked for lowers what it writes to an opset that the model may have"
        )


def _not_lowered(model: Model, trace: Trace) -> set[str]:
    """The rules that wrote what no file has and nothing lowered, as rules are left out or the opset is too old."""
    names = {v.name for scope in model.scopes() for n in scope.ops() if n.domain == IR_DOMAIN for v in n.outputs}
    return {site.rule for site in trace.sites if not names.isdisjoint(site.made)}


@collector_off()
def optimize(
    model: Model,
    *,
    target: Target,
    rules: Sequence[CompiledRule],
    assume: frozenset[str] = frozenset(),
    keep_opset: bool = False,
    keep_functions: Collection[str] = frozenset(),
    exclude: frozenset[SiteKey] = frozenset(),
    max_new_weights: int = Limits.new_bytes,
    plan: Callable[[Model], Plan | None] | None = None,
    progress: Progress | None = None,
    observer: Observer | None = None,
) -> Trace:
    """Rewrites `model` in place for `target`; returns the trace of what was done.

    `assume` are promises about inputs, names of `ASSUMPTIONS`, and stand in the model's metadata afterwards.
    `keep_functions` are functions that stay functions, by their domains or as `domain.op`: an operator for which the
    user has a kernel of his own may have one.
    `exclude` names sites that must not be taken again: what a verifier found guilty. `plan` is asked once, when the
    model is fused and not yet lowered, what is to be quantized; it may change the model as well. The same arguments
    give the same model on every machine; an `observer` sees it on the way. Raises: NewWeightsLimit when one rule writes
    more than `max_new_weights` bytes.
    """
    for promise in sorted(assume):
        model.proto.metadata_props.add(key=f"graphopt.assume.{promise}", value=ASSUMPTIONS[promise])
    # A function that says something else stays what it says.
    target = without(target, withdraw_bodies(model))
    trace = Trace()

    def stays(domain: str, op: str) -> bool:
        return (domain, op) in target.kernels or not {domain, qualified(domain, op)}.isdisjoint(keep_functions)

    with hold_trained(model):
        inline_functions(model, trace, stays=stays, exclude=exclude)
        infer(model)
        # What training computes is written in the model's opset and stays as it is.
        pinned = keep_opset or bool(model.proto.training_info) or can_raise(model, target.opset) is not None
        context = Context(target, assume, keep_opset=pinned)
        # Clean rules run inside every stage: what one rule leaves is in the way of the next.
        engine = Engine(rules, context, Limits(new_bytes=max_new_weights), exclude, trace)
        folding = Budget(large=max_new_weights)
        settled = -1
        for number, stage in enumerate(STAGES):
            if stage == "quantize":
                if plan is None:
                    continue
                engine.context = replace(context, plan=plan(model))
            if progress is not None:
                progress(stage, number, len(STAGES))
            if observer is not None:
                observer.begins(stage, model, engine)
            settled = _settle(model, engine, ("clean", stage), folding, settled)
            if observer is not None and stage != "clean":
                observer.settled(stage, model, engine)
        if observer is not None:
            # Clean rules run to the end.
            observer.settled("clean", model, engine)
    trace.stopped += folding.stopped.values()
    settle_opset(model, newest=None if pinned else target.opset)
    spell_constants(model)
    model.ledger.forget()
    return trace


def _settle(model: Model, engine: Engine, stages: tuple[Stage, ...], folding: Budget, settled: int) -> int:
    """Passes and the rules of `stages` in turn until none changes anything; returns the moment when that was so.

    At the moment `settled` passes had nothing to do (-1: never): they need not look again at what did not change since.
    """
    for _ in range(_ROUNDS):
        changes = 0
        if model.ledger.mark() != settled:
            # Merging before folding keeps equal transposes of one weight from becoming copies of it.
            changes += choose_branches(model, engine.trace, engine.exclude)
            changes += simplify_shapes(model) + merge_common(model) + fold_constants(model, folding)
        changes += engine.run(model, stages)
        changes += remove_dead(model)
        if not changes:
            return model.ledger.mark()
    return -1
