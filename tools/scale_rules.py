"""What all rules to a fixpoint cost per node, beside other optimizers, and what rules cost that nearly match.

The model is a BERT as exporters write it, tiny and with as many layers as it takes. Every figure comes from a process
of its own, which first optimizes a small model (what is imported or made once does not count), and is the least of a
few runs, each on a freshly read model.
"""

from __future__ import annotations

import json
import logging
import math
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import click
import onnx
from scale_models import HEADS, HIDDEN, bert_like

from graphopt.ir import Model, Value, load
from graphopt.ir.infer import infer
from graphopt.pipeline.optimize import optimize
from graphopt.rewrite import Builder, CompiledRule, Context, Engine, Expr, Ops, Rule, built_in_rules
from graphopt.targets import target_named

MOST_SECONDS = 0.15
"""CPU seconds per 1,000 nodes, at `AT` nodes."""
AT = 10_000
MOST_GROWTH = 1.15
"""The exponent, from the smallest of `_SIZES` to the largest."""
MOST_NEAR_MISSES = 2.0
"""How much longer a hundred rules may take than one of them."""

_RUNS = 4
_ENOUGH = 10.0
_LIMIT = 120.0
_SIZES = (1_000, AT, 50_000)
_WARM = 300

Count = Callable[[], int]
"""Does the work; the number of nodes that are left."""


class Cost(NamedTuple):
    """Of one optimizer on one model: CPU seconds to read it and to optimize it, nodes before and after."""

    load: float
    optimize: float
    before: int
    after: int


# ---- the optimizers: each reads a file, and returns how it goes on ---------------------------------------------------


def by_graphopt(path: Path) -> Count:
    return _with_rules(path, built_in_rules())


def by_onnxsim(path: Path) -> Count:
    import onnxsim

    proto = onnx.load(path)
    return lambda: len(onnxsim.simplify(proto)[0].graph.node)


def by_onnxslim(path: Path) -> Count:
    import onnxslim

    proto = onnx.load(path)
    return lambda: len(onnxslim.slim(proto).graph.node)


def by_onnxscript(path: Path) -> Count:
    import onnx_ir
    from onnxscript import optimizer

    read = onnx_ir.load(path)
    return lambda: optimizer.optimize(read).graph.num_nodes()


def by_onnxscript_fusions(path: Path) -> Count:
    import onnx_ir
    from onnxscript.rewriter import ort_fusions

    read = onnx_ir.load(path)
    return lambda: ort_fusions.optimize_for_ort(read)[0].graph.num_nodes()


def by_onnxruntime(path: Path) -> Count:
    from onnxruntime.transformers import optimizer

    proto = onnx.load(path)
    return lambda: len(optimizer.optimize_by_fusion(proto, "bert", HEADS, HIDDEN).model.graph.node)


OPTIMIZERS: dict[str, Callable[[Path], Count]] = {
    "graphopt": by_graphopt,
    "onnxsim": by_onnxsim,
    "onnxslim": by_onnxslim,
    "onnxscript": by_onnxscript,
    "onnxscript ort_fusions": by_onnxscript_fusions,
    "onnxruntime.transformers": by_onnxruntime,
}


def _with_rules(path: Path, rules: Sequence[CompiledRule]) -> Count:
    """`graphopt` with these rules."""
    read, target = load(path), target_named("ort-cpu")

    def count() -> int:
        optimize(read, target=target, rules=rules)
        return read.node_count()

    return count


# ---- rules that nearly match -----------------------------------------------------------------------------------------


def near_miss(name: str, argument: Callable[[Ops, Value], Expr]) -> CompiledRule:
    """A GELU, rooted at Mul as the model's are, with something else than x/√2 inside its Erf."""

    class NearMiss(Rule):
        """Never matches."""

        stage = "recover"

        def pattern(self, op: Ops, x: Value) -> Expr:
            return op.prod(x, 0.5, 1.0 + op.Erf(argument(op, x)))

        def rewrite(self, op: Builder, x: Value) -> Value:
            return op.Relu(x)

    NearMiss.__name__ = name
    return CompiledRule(NearMiss())


def by_constant() -> Iterator[CompiledRule]:
    """A hundred patterns that differ in the number at a leaf, four nodes behind the root."""
    for index in range(1, 101):
        yield near_miss(f"Constant{index}", partial(_divided, math.sqrt(2) + index / 100))


def _divided(number: float, op: Ops, x: Value) -> Expr:
    return op.scaled(x, 1 / number)


def by_operators() -> Iterator[CompiledRule]:
    """A hundred patterns of which no two have the same two operators there."""
    unary = ("Abs", "Ceil", "Cos", "Exp", "Floor", "Log", "Neg", "Sigmoid", "Sin", "Tanh")
    for outer, inner in product(unary, unary):
        yield near_miss(f"{outer}{inner}", partial(_nested, outer, inner))


def _nested(outer: str, inner: str, op: Ops, x: Value) -> Expr:
    made: Expr = getattr(op, outer)(getattr(op, inner)(x))
    return made


NEAR_MISSES: dict[str, Callable[[], Iterator[CompiledRule]]] = {"constant": by_constant, "operators": by_operators}


def engine_alone(path: Path, rules: Sequence[CompiledRule]) -> Count:
    """Only these rules, without passes."""
    read: Model = load(path)
    infer(read)
    engine = Engine(rules, Context())

    def count() -> int:
        assert engine.run(read) == 0
        return read.node_count()

    return count


def with_near_misses(kind: str, number: int, alone: bool) -> Callable[[Path], Count]:
    """An optimizer: the first `number` rules of a kind alone, or beside the built-in ones."""
    rules = list(NEAR_MISSES[kind]())[:number]
    if alone:
        return lambda path: engine_alone(path, rules)
    return lambda path: _with_rules(path, [*built_in_rules(), *rules])


# ---- one measurement, in a process of its own ------------------------------------------------------------------------


def measure(optimizer: Callable[[Path], Count], path: Path, runs: int = 1) -> Cost:
    """The least of a few runs; of fewer where they take long."""
    before = len(onnx.load(path, load_external_data=False).graph.node)
    costs: list[Cost] = []
    first = _cpu()
    while not costs or (len(costs) < runs and _cpu() - first < _ENOUGH):
        start = _cpu()
        count = optimizer(path)
        read = _cpu()
        after = count()
        costs.append(Cost(read - start, _cpu() - read, before, after))
    return min(costs, key=lambda cost: cost.optimize)


def _cpu() -> float:
    """CPU seconds of this process and its children so far."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measured(folder: Path, nodes: int, *what: object) -> Cost | str:
    """`measure` of the optimizer that `what` says, in a child; the reason where there is no figure."""
    path = _saved(folder, nodes)
    command = [sys.executable, __file__, str(_saved(folder, _WARM)), str(path), *map(str, what)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT)
    except subprocess.TimeoutExpired:
        return f"stopped after {_LIMIT:.0f} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def _saved(folder: Path, nodes: int) -> Path:
    path = folder / f"bert-{nodes}.onnx"
    if not path.exists():
        onnx.save(bert_like(nodes), path)
    return path


def _child(warm: str, path: str, name: str, *rest: str) -> Cost:
    logging.disable(logging.WARNING)
    if name in OPTIMIZERS:
        optimizer = OPTIMIZERS[name]
    else:
        number, alone = rest
        optimizer = with_near_misses(name, int(number), alone == "alone")
    measure(optimizer, Path(warm))
    return measure(optimizer, Path(path), _RUNS)


# ---- the tables ------------------------------------------------------------------------------------------------------


@click.command()
@click.option("--peers/--no-peers", default=True, help="Other optimizers as well.")
def rules(peers: bool) -> None:
    """All rules to a fixpoint, other optimizers beside it, and rules that nearly match."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        met = [*_fixpoint(folder, peers), *_near_misses(folder)]
    raise SystemExit(not all(met))


def _fixpoint(folder: Path, peers: bool) -> Iterator[bool]:
    names = list(OPTIMIZERS) if peers else ["graphopt"]
    click.echo(f"{'':26} {'nodes':>7} {'after':>7} {'optimize':>9} {'with load':>9}  CPU s per 1,000 nodes")
    costs: dict[tuple[str, int], Cost] = {}
    for nodes in _SIZES:
        for name in names if nodes <= AT else ["graphopt"]:
            cost = measured(folder, nodes, name)
            if isinstance(cost, str):
                click.echo(f"{name:26} {nodes:7}  {cost}")
                continue
            costs[name, nodes] = cost
            each, both = (1000 * seconds / cost.before for seconds in (cost.optimize, cost.optimize + cost.load))
            click.echo(f"{name:26} {cost.before:7} {cost.after:7} {each:9.4f} {both:9.4f}")
    ours = [cost for (name, _), cost in costs.items() if name == "graphopt"]
    if len(ours) < len(_SIZES):
        yield False
        return
    small, middle, large = ours
    yield _target(f"CPU s per 1,000 nodes at {AT} nodes", 1000 * middle.optimize / middle.before, MOST_SECONDS)
    growth = math.log(large.optimize / small.optimize) / math.log(large.before / small.before)
    yield _target("growth exponent", growth, MOST_GROWTH)


def _near_misses(folder: Path) -> Iterator[bool]:
    for kind in NEAR_MISSES:
        for rest in ("alone", "beside all others"):
            one, hundred = (measured(folder, AT, kind, number, rest) for number in (1, 100))
            if isinstance(one, str) or isinstance(hundred, str):
                click.echo(f"rules that differ in a {kind}, {rest}: {one}, {hundred}")
                yield False
            else:
                seconds = f"{hundred.optimize:.3f} s / {one.optimize:.3f} s"
                name = f"100 near misses ({kind}) to 1, {rest}: {seconds}"
                yield _target(name, hundred.optimize / one.optimize, MOST_NEAR_MISSES)


def _target(name: str, found: float, most: float) -> bool:
    click.echo(f"{name}: {found:.3f}, target {most}: {'met' if found <= most else 'missed'}")
    return found <= most


if __name__ == "__main__":
    click.echo(json.dumps(_child(*sys.argv[1:])))
