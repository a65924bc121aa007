"""How far right rewrites are off, in floors; and what the verifier says of onnxruntime's own optimizer.

For some of a folder of exports, as tools/zoo.py writes them:

- the fused model against the export: the error of each region and of each output, over its measured floor; `K` floors
  are allowed, so what is right should stay well below;
- the export as onnxruntime optimizes it, at each level, against the export as it is, by the same floors.

    python tools/floors.py exports --count 30
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np
import onnxruntime as ort
from rich.console import Console
from rich.table import Table

from graphopt.errors import GraphoptError
from graphopt.ir import Model, load
from graphopt.pipeline.optimize import optimize
from graphopt.rewrite import built_in_rules
from graphopt.runtime import RunError
from graphopt.targets import target_named
from graphopt.verify import Checker, Comparison, Options, pair
from graphopt.verify.numbers.measure import over_feeds
from graphopt.verify.numbers.tolerance import K
from graphopt.verify.parts import Part, PartSession, part
from graphopt.verify.runs import Runs

LEVELS = {
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
Compared = list[Comparison]


def chosen(folder: Path, count: int, seed: int) -> list[Path]:
    """Exports of as many architectures as there are, one of each before a second of any."""
    rng = np.random.default_rng(seed)
    by_model: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.onnx")):
        by_model.setdefault(path.name.split(".")[0], []).append(path)
    groups = [[group[i] for i in rng.permutation(len(group))] for group in by_model.values()]
    rounds = [[group[n] for group in groups if n < len(group)] for n in range(max(map(len, groups), default=0))]
    return [paths[i] for paths in rounds for i in rng.permutation(len(paths))][:count]


def fused(path: Path) -> Model:
    model = load(path)
    optimize(model, target=target_named("ort-cpu"), rules=built_in_rules())
    return model


def of_regions(path: Path) -> Compared:
    """Every region of the fused model."""
    with Checker(load(path)) as checker:
        return list(checker.check(fused(path)).regions)


def of_outputs(path: Path) -> dict[str, Compared]:
    """The outputs of the fused model, and of the export as onnxruntime optimizes it at each level."""
    reference = load(path)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        runs = stack.enter_context(Runs(reference, Options()))
        whole = part(reference, reference.graph.outputs, runs.weights, noisy=runs.data)
        original = whole.load(runs.runner, "the export")
        after = fused(path)
        sessions = {"fused": part(after, after.graph.outputs, runs.weights).load(runs.runner, "the fused model")}
        sessions |= {level: by_onnxruntime(runs, path, level, folder, original) for level in LEVELS}
        rows: dict[tuple[str, str], Compared] = {}
        pairs = {what: pair.Pair(runs, original, [session]) for what, session in sessions.items()}
        for number, feed in enumerate(runs.feeds(original, thorough=True)):
            for what, both in pairs.items():
                try:
                    found = both.run(feed.label, feed.arrays, number, feed.special)[1]
                except pair.CannotRun:
                    continue
                for name, one in found.items():
                    rows.setdefault((what, name), []).append(one)
    decided = {key: over_feeds(row) for key, row in rows.items()}
    return {what: [one for (of, _), one in decided.items() if of == what] for what in sessions}


def by_onnxruntime(runs: Runs, path: Path, level: str, folder: Path, original: PartSession) -> PartSession:
    """A session of what onnxruntime makes of an export at one level; raises RunError where it does not."""
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.optimized_model_filepath = str(folder / f"{level}.onnx")
    options.log_severity_level = 4
    try:
        ort.InferenceSession(str(path), options)
    except Exception as error:
        raise RunError("load", "", str(error), str(path)) from error
    written = (folder / f"{level}.onnx").read_bytes()
    session = runs.runner.load(written, optimize=False, base=path.parent)
    names = [port.name for port in session.outputs]
    outputs = dict(zip(original.part.outputs, names, strict=True))
    return PartSession(session, Part(outputs=outputs, inputs=frozenset(port.name for port in session.inputs)))


def distribution(found: Sequence[Comparison]) -> Iterator[str]:
    """min, median, 90 %, largest error in floors of what has one, and what is not equal."""
    ratios = sorted(one.ratio for one in found if one.ratio is not None)
    if ratios:
        places = (0, len(ratios) // 2, int(len(ratios) * 0.9), -1)
        yield from (f"{ratios[place]:.2f}" for place in places)
    else:
        yield from ("",) * 4
    yield str(sum(one.verdict == "equal" for one in found))
    yield str(sum(one.verdict == "inconclusive" for one in found))
    yield str(sum(one.verdict == "unequal" for one in found))


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--count", default=30, show_default=True, help="How many exports.")
@click.option("--seed", default=0, show_default=True, help="Which ones.")
@click.option("--quick", is_flag=True, help="As the verifier does it: no floor is measured where none is needed.")
def main(folder: Path, count: int, seed: int, quick: bool) -> None:
    console = Console(width=140)
    if not quick:
        pair.SETTLED = 0.0
    everything: dict[str, Compared] = {}
    for path in chosen(folder, count, seed):
        try:
            found = {"regions": of_regions(path), **of_outputs(path)}
        except GraphoptError as error:
            console.print(f"{path.stem}: left out: {error.message}"[:139], markup=False)
            continue
        for what, some in found.items():
            everything.setdefault(what, []).extend(some)
            for one in some:
                if one.verdict == "unequal":
                    console.print(f"{path.stem}: {what}: '{one.name}' under {one.feed}: {one.reason}", markup=False)
    table = Table(title=f"error / floor; {K:g} are allowed")
    for column in ("", "min", "median", "90 %", "max", "equal", "inconclusive", "unequal"):
        table.add_column(column, justify="left" if not column else "right")
    for what, some in everything.items():
        table.add_row(f"onnxruntime, {what}" if what in LEVELS else what, *distribution(some))
    console.print(table)


if __name__ == "__main__":
    main()
