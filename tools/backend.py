"""The models of onnx's backend tests, loaded, saved, and verified against themselves.

    python tools/backend.py
    python tools/backend.py --only attention --list

Each model is loaded, written to a file and read again; what was read is checked against the model. Three checks, each a
column: as `graphopt verify` does it, where structure decides and nothing is run; by running both whole models on made
inputs, whatever structure says; and by running them on the inputs that come with the test. A row is a verdict. Below
the table stands why a model is refused, and why a check did not say `equal`, with how often and the first examples.
Exit code 1: something was unequal or crashed.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.case.test_case import TestCase
from rich.console import Console
from rich.progress import track
from rich.table import Table

from graphopt.errors import GraphoptError, InconclusiveError, RuntimeCrash
from graphopt.ir import Model, load, save
from graphopt.runtime import Runner
from graphopt.verify import Options, Verification, regions
from graphopt.verify.endtoend import compare_in
from graphopt.verify.interface import interface_difference
from graphopt.verify.refusals import shortened
from graphopt.verify.runs import Runs

VERDICTS = ("equal", "inconclusive", "skipped", "unequal", "crash", "bug", "refused", "not run")
CHECKS = ("structure", "made inputs", "given inputs")
TIMEOUT = 60.0
MEMORY = 8 << 30
"""Bytes that the child may allocate."""


@dataclass(frozen=True)
class Check:
    """What one check said; `crash` where the runtime died, `bug` where the check itself did, `refused` where it ended
    with an error for people (the model is invalid to onnxruntime, say), `not run` where there was nothing to check."""

    verdict: str
    reason: str = ""


@dataclass(frozen=True)
class Outcome:
    """One test: the error code with which graphopt refused the model (empty: it did not), whether onnxruntime loads
    the model with optimization off, and what each check said."""

    name: str
    refused: str
    loads: bool
    checks: Mapping[str, Check]


def cases(only: Sequence[str] = (), every: int = 1) -> list[TestCase]:
    """The tests by name, `every` so many of those whose names contain all of `only`."""
    with warnings.catch_warnings():
        # onnx's own makers of expected values divide by zero on purpose.
        warnings.simplefilter("ignore")
        found = sorted(collect_testcases(None), key=lambda case: str(case.name))
    return [case for case in found if all(part in case.name for part in only)][::every]


def sweep(tests: Sequence[TestCase]) -> Iterator[Outcome]:
    """The outcome of each, in one child process."""
    with tempfile.TemporaryDirectory() as folder, Runner(timeout=TIMEOUT, memory=MEMORY) as runner:
        for case in tests:
            yield outcome(case, Path(folder), runner)


def outcome(case: TestCase, folder: Path, runner: Runner) -> Outcome:
    """What becomes of one model, which is written into `folder` and removed again."""
    assert case.model is not None
    path = folder / "model.onnx"
    try:
        original = load(case.model)
        written = load(save(original, path)[-1])
    except GraphoptError as error:
        return Outcome(case.name, f"{error.code}: {error.message}", False, dict.fromkeys(CHECKS, Check("not run")))
    made = Options(timeout=TIMEOUT, memory=MEMORY)
    checks = {
        CHECKS[0]: checked(lambda: by_structure(original, written)),
        CHECKS[1]: checked(lambda: by_running(original, written, made, runner)),
        CHECKS[2]: checked(lambda: by_running(original, written, replace(made, inputs=given(case)), runner)),
    }
    with Runs(original, made, runner) as runs:
        refusal = runs.refusal(original)
    path.unlink()
    return Outcome(case.name, "", not refusal, checks)


def by_structure(original: Model, written: Model) -> Verification:
    """What `graphopt verify` says before it runs anything."""
    difference = interface_difference(original, written)
    same = not difference and not regions(original, written)[0]
    return Verification("equal" if same else "unequal", "structure", difference or "they are built differently")


def by_running(original: Model, written: Model, options: Options, runner: Runner) -> Verification:
    with Runs(original, options, runner) as runs:
        return compare_in(runs, original, written)


def given(case: TestCase) -> dict[str, Any]:
    """The inputs of the test, by name."""
    assert case.model is not None
    assert case.data_sets is not None
    names = [value.name for value in case.model.graph.input]
    values = [numpy_helper.to_array(v) if isinstance(v, TensorProto) else v for v in case.data_sets[0][0]]
    return dict(zip(names, values, strict=False))


def checked(check: Callable[[], Verification]) -> Check:
    try:
        found = check()
    except RuntimeCrash as error:
        return Check("crash", error.message)
    except InconclusiveError as error:
        return Check("inconclusive", error.message)
    except GraphoptError as error:
        return Check("refused", f"{error.code}: {error.message}")
    except Exception as error:
        return Check("bug", f"{type(error).__name__}: {error}")
    if found.crashes:
        return Check("crash", found.reason)
    return Check(found.verdict, found.reason if found.verdict != "equal" else "")


def summary(outcomes: Sequence[Outcome]) -> Table:
    loaded = [one for one in outcomes if not one.refused]
    runs = sum(one.loads for one in loaded)
    title = f"{len(outcomes)} models: graphopt loads {len(loaded)}, onnxruntime {runs} of them"
    table = Table("", *CHECKS, title=title, min_width=len(title))
    for loads, verdict in itertools.product((True, False), VERDICTS):
        those = [one for one in outcomes if one.loads is loads]
        counts = [sum(one.checks[check].verdict == verdict for one in those) for check in CHECKS]
        if any(counts):
            table.add_row(verdict if loads else f"{verdict}, not loaded by onnxruntime", *map(str, counts))
    return table


def reasons(outcomes: Sequence[Outcome]) -> Table:
    """Refusals, and what checks say that are not equal, the most frequent first."""
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for one in outcomes:
        if one.refused:
            found["load", "refused", general(one.refused)].append(one.name)
        for name, check in one.checks.items():
            if check.reason:
                found[name, check.verdict, general(check.reason)].append(one.name)
    table = Table("check", "verdict", "reason", "models", "for example")
    for (name, verdict, reason), names in sorted(found.items(), key=lambda item: -len(item[1])):
        table.add_row(name, verdict, reason, str(len(names)), ", ".join(names[:3]))
    return table


def general(reason: str) -> str:
    """A reason without what is special to one model: names and numbers."""
    line = shortened(reason.strip().partition("\n")[0])
    numbers = r"(?<!GO)\b-?\d+(\.\d+)?(e[+-]?\d+)?"
    return re.sub(numbers, "N", re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", line))[:180]


@click.command(help=__doc__)
@click.option("--only", multiple=True, help="Part of the names of the tests to take; repeatable.")
@click.option("--every", default=1, help="Take one test of so many.")
@click.option("--list", "listed", is_flag=True, help="Print every test.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the outcomes.")
def main(only: tuple[str, ...], every: int, listed: bool, json_path: Path | None) -> None:
    console = Console(width=200)
    tests = cases(only, every)
    found = list(track(sweep(tests), total=len(tests), console=Console(stderr=True)))
    for one in found if listed else ():
        console.print(one.name, one.refused, *(f"{check.verdict} {check.reason}" for check in one.checks.values()))
    console.print(summary(found))
    console.print(reasons(found))
    if json_path is not None:
        json_path.write_text(json.dumps([asdict(one) for one in found], indent=1))
    verdicts = Counter(check.verdict for one in found for check in one.checks.values())
    sys.exit(1 if any(verdicts[bad] for bad in ("unequal", "crash", "bug")) else 0)


if __name__ == "__main__":
    main()
