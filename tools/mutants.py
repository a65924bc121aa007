"""Makes single mistakes in exported models at random, and shows whether `graphopt verify` finds them.

    python tools/mutants.py FOLDER
    python tools/mutants.py FOLDER --each 20 --seed 3

FOLDER is as `zoo_export.py` writes it: beside each model an .npz of inputs. What a mutant is, is decided without the
verifier: the model and the mutant run, not optimized, on those inputs, on floats drawn anew and integers shuffled, and
on one row. It is `different` where they are far apart, `near` where they are a little, `same` where no bit differs:
then it may be a mistake that these inputs do not show, or none. Mutants that do not run at all are left out. Exits
with 1 when one that is different is not found, or when the verifier fails.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import onnx
import onnxruntime as ort
from mutations import CHANGES, Mutant, mutants

from graphopt.errors import GraphoptError
from graphopt.ir import model_from_proto
from graphopt.runtime import Runner
from graphopt.verify import Parting, compare

FAR: Final = {"float32": 1e-3, "float16": 5e-2}
"""What is no rounding, as a share of the rms; other types are exact."""

_ROUNDS: Final = 8
_SECONDS: Final = 60.0

Array = np.ndarray[Any, Any]
Results = list[list[Array] | None]


def cases(path: Path, rng: np.random.Generator) -> list[dict[str, Array]]:
    """Legal inputs: those of the file, floats drawn anew and integers shuffled, one row."""
    found: dict[str, dict[str, Array]] = {}
    with np.load(path) as arrays:
        for name in arrays.files:
            case, side, value = name.split("/", 2)
            if side == "in":
                found.setdefault(case, {})[value] = arrays[name]
    drawn = [{name: _drawn(array, rng) for name, array in case.items()} for case in found.values()]
    rows = [{name: array[:1] for name, array in case.items()} for case in found.values()]
    return [*found.values(), *drawn, *rows[:2]]


def _drawn(array: Array, rng: np.random.Generator) -> Array:
    if array.dtype.kind == "f":
        return np.asarray(rng.normal(size=array.shape) * rng.choice([1.0, 4.0]), array.dtype)
    shuffled: Array = rng.permutation(array.reshape(-1)).reshape(array.shape)
    return shuffled


def results(proto: onnx.ModelProto, feeds: list[dict[str, Array]]) -> Results:
    """What a model gives for each case, not optimized; None where it refuses it."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # of a class for each status, which onnxruntime does not export
        return [None] * len(feeds)
    wanted = {one.name for one in session.get_inputs()}
    return [_run(session, {name: array for name, array in feed.items() if name in wanted}) for feed in feeds]


def _run(session: ort.InferenceSession, feed: dict[str, Array]) -> list[Array] | None:
    try:
        return list(session.run(None, feed))
    except Exception:
        return None


def difference(before: Results, after: Results) -> str:
    """What a mutant is; empty where it does not run."""
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a is not None]
    if not any(b is not None for _, b in pairs):
        return ""
    apart = max(max(map(_apart, a, b)) if b is not None else 1.0 for a, b in pairs)
    return "different" if apart >= 1 else "near" if apart > 0 else "same"


def _apart(a: Array, b: Array) -> float:
    """How far two results are apart; 1 where it is no rounding."""
    if a.dtype != b.dtype or a.shape != b.shape or (np.isfinite(a) != np.isfinite(b)).any():
        return 1.0
    x, y = (one[np.isfinite(a)].astype(np.float64) for one in (a, b))
    if (x == y).all():
        return 0.0
    far = FAR.get(a.dtype.name, 0.0) * float(np.sqrt(np.mean(np.square(x))))
    return float(np.abs(x - y).max()) / far if far else 1.0


def said(model: onnx.ModelProto, mutant: Mutant, runner: Runner) -> tuple[str, bool]:
    """The verdict, or the code of an error, and whether the place that is named is that of the mistake."""
    try:
        found = compare(model_from_proto(model), model_from_proto(mutant.proto), runner=runner)
    except GraphoptError as error:
        return error.code, False
    place = found.parting or Parting(0, 0)
    words = f"{place.reference} {place.candidate} {place.difference} {place.value}"
    return found.verdict, any(f"'{name}'" in words for name in mutant.near)


def running(path: Path, seed: int, each: int) -> Iterator[tuple[onnx.ModelProto, Mutant, str]]:
    """Some mutants of a model, and what they are."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    feeds = cases(path.with_suffix(".npz"), np.random.default_rng(seed))
    before = results(model, feeds)
    drawn = islice(mutants(model, random.Random(f"{seed} {path.name}")), _ROUNDS * each)
    judged = ((model, mutant, difference(before, results(mutant.proto, feeds))) for mutant in drawn)
    return islice((one for one in judged if one[2]), each)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--each", default=10, show_default=True, help="Mutants of each model.")
@click.option("--seed", default=0, show_default=True)
def main(folder: Path, each: int, seed: int) -> None:
    """Prints what was missed, then a table of all."""
    found: Counter[tuple[str, str, str]] = Counter()
    places: Counter[bool] = Counter()
    with Runner(timeout=_SECONDS) as runner:
        for path in sorted(one for one in folder.glob("*.onnx") if one.with_suffix(".npz").exists()):
            for model, mutant, what in running(path, seed, each):
                verdict, is_named = said(model, mutant, runner)
                found[mutant.kind, what, verdict] += 1
                if verdict == "unequal":
                    places[is_named] += 1
                elif what == "different" or verdict != "equal":
                    click.echo(f"{path.stem}: {mutant.kind} of {mutant.node} is {what}, the verdict {verdict}")
    columns = [*((what, said) for what in ("different", "near", "same") for said in ("unequal", "equal"))]
    click.echo(f"| | {' | '.join(f'{what}: {verdict}' for what, verdict in columns)} | neither |")
    click.echo(f"|---|{'---|' * (len(columns) + 1)}")
    for kind in (change.__name__ for change in CHANGES):
        counts = [found[kind, *column] for column in columns]
        rest = sum(count for key, count in found.items() if key[0] == kind) - sum(counts)
        click.echo(f"| {kind} | {' | '.join(map(str, [*counts, rest]))} |")
    click.echo(f"\nthe place is named for {places[True]} of {places.total()} that were found")
    missed = [key for key in found if key[2] not in ("equal", "unequal") or key[1:] == ("different", "equal")]
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
