"""Makes single mistakes in graphopt's own source at random, and shows whether a test notices.

    python tools/source_mutants.py --each 20
    python tools/source_mutants.py graphopt/ir/graph.py --each 100 --seed 3
    python tools/source_mutants.py graphopt/ir/graph.py --each 100 --seed 3 --only 17 --only 40

Tried on a copy of the checkout in a temporary folder. One run of all quick tests shows which of them execute which
line; a mutant meets those that execute its own, the quickest first, until one fails. It survives where none does.
`timed out` is what makes a test run many times as long as it did: that is noticed too. Exits with 1 when fewer than
`--least` percent are noticed.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from coverage import CoverageData
from source_mutations import SourceMutant, source_mutants
from weaken import Copy, copied

CORE: Final = tuple(
    f"graphopt/{folder}/{name}.py"
    for folder, names in (
        ("ir", "graph node ledger gate wire external admission load tensor encode save side publish copying"),
        ("ir", "validate dims infer versions"),
        ("rewrite", "search matcher engine index pattern replacement worklist facts leaves constraints"),
    )
    for name in names.split()
)
"""What a mistake in harms most: the graph, how it is read and written, and what finds and replaces."""

_TESTS: Final = ("tests/unit", "tests/property/test_matching.py")
_OTHERS: Final = (
    *("verify", "quantize", "bench", "runtime", "zoo", "targets", "cuda", "docs", "kernels_page", "check_rule"),
    *("errors", "exotic", "fixpoint", "mutations", "scale", "budgets_verify"),
)
"""Tests in these folders that are of something else, or slow."""

_ALL: Final = 1800.0
"""Seconds in which all tests have to end."""
_SECONDS: Final = 8.0
"""What the tests of one mutant may take of a processor where none fails: the quickest are chosen."""
_LIMIT: Final = 5.0, 3.0
"""A run does not end that takes so many seconds, and so many times as long as without a mistake."""
_SLOW: Final = 4.0
"""How many seconds one of the processor may take."""


@dataclass(frozen=True)
class Lines:
    """Which tests execute which line of a file, and how many seconds of a processor each test takes."""

    tests: dict[tuple[str, int], frozenset[str]]
    seconds: dict[str, float]

    def of(self, file: str, mutant: SourceMutant) -> list[str]:
        """The tests that execute a mutant, the quickest first; those of the whole file where it runs on import."""
        lines = range(mutant.line, mutant.last + 1)
        found = {test for line in lines for test in self.tests.get((file, line), ())}
        # Lines of a constant that is one do not run by themselves.
        if "" in found or (mutant.function is None and not found):
            found = {test for (name, _), tests in self.tests.items() if name == file for test in tests}
        chosen, total = [], 0.0
        for test in sorted(found - {""}, key=lambda test: (self.seconds.get(test, 0.0), test)):
            total += self.seconds.get(test, 0.0)
            if total <= _SECONDS:
                chosen.append(test)
        return chosen

    def limit(self, tests: Sequence[str]) -> float:
        """The seconds of a processor after which these tests do not end any more."""
        floor, times = _LIMIT
        return floor + times * sum(self.seconds.get(test, 0.0) for test in tests)


def executed(copy: Copy, tests: Sequence[str]) -> Lines:
    """Runs all tests once. Raises: ClickException where one fails without any mistake."""
    shutil.copy(Path(__file__).with_name("executed_lines.py"), copy.folder)
    status, output = copy.test(tests, "-p", "executed_lines", seconds=_ALL)
    if status:
        raise click.ClickException(f"the tests fail as it is:\n{output[-3000:]}")
    found: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    coverage = CoverageData(str(copy.folder / ".coverage"))
    coverage.read()
    for path in coverage.measured_files():
        for line, contexts in coverage.contexts_by_lineno(path).items():
            found[str(Path(path).relative_to(copy.folder)), line].update(contexts)
    seconds = json.loads((copy.folder / "seconds.json").read_text())
    return Lines({place: frozenset(tests) for place, tests in found.items()}, seconds)


def quick_tests(folder: Path) -> list[str]:
    """The files of tests that mutants meet."""
    files = [path for place in _TESTS for path in ([folder / place] if place.endswith(".py") else _in(folder / place))]
    return [str(path.relative_to(folder)) for path in files]


def _in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.glob("test_*.py")):
        if path.stem == "test_ir_mutations" or not any(word in path.stem for word in _OTHERS):
            yield path


def verdicts(copy: Copy, drawn: Sequence[tuple[str, SourceMutant]], lines: Lines, tests: Sequence[str]) -> list[str]:
    """`killed`, `timed out`, `survived`, or `unseen` where no test executes it, for each mutant.

    Those in functions are made in the memory of a process that has collected all tests, those that run on import in
    their file.
    """
    shutil.copy(Path(__file__).with_name("mutant_loop.py"), copy.folder)
    seen = {place: lines.of(file, mutant) for place, (file, mutant) in enumerate(drawn)}
    jobs = {
        place: _job(copy.folder, *drawn[place], found, lines.limit(found))
        for place, found in seen.items()
        if found and drawn[place][1].function is not None
    }
    (copy.folder / "jobs.json").write_text(json.dumps(list(jobs.values())))
    status, output = copy.test(tests, "-p", "mutant_loop", seconds=_ALL * len(drawn))
    if status:
        raise click.ClickException(f"the tests cannot be collected:\n{output[-3000:]}")
    said = dict(zip(jobs, (copy.folder / "verdicts.txt").read_text().split("\n"), strict=False))
    return [
        _alone(copy, *one, seen[place], lines) if said.get(place, "unborn") == "unborn" else said[place]
        for place, one in enumerate(drawn)
    ]


def _job(folder: Path, file: str, mutant: SourceMutant, tests: Sequence[str], seconds: float) -> dict[str, Any]:
    path = folder / file
    return {
        "module": file.removesuffix(".py").replace("/", "."),
        "code": [str(path), *(mutant.function or ())],
        "source": mutant.applied(path.read_text()),
        "tests": tests,
        "seconds": seconds,
    }


def _alone(copy: Copy, file: str, mutant: SourceMutant, tests: Sequence[str], lines: Lines) -> str:
    """The verdict on a mutant that is written to its file."""
    if not tests:
        return "unseen"
    path, chosen = copy.folder / file, copy.folder / "chosen.txt"
    chosen.write_text("\n".join(tests))
    before = path.read_text()
    path.write_text(mutant.applied(before))
    try:
        status, output = copy.test([f"@{chosen}"], "-x", "--no-header", "--tb=no", seconds=_SLOW * lines.limit(tests))
    finally:
        path.write_text(before)
    if status == 1 and not output:
        return "timed out"
    return "survived" if status == 0 else "killed"


@click.command()
@click.argument("files", nargs=-1)
@click.option("--each", default=20, show_default=True, help="Mutants of each file.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--only", type=int, multiple=True, metavar="N", help="Only this mutant of those; may be given several times."
)
@click.option("--least", default=0.0, show_default=True, help="Percent that must be noticed.")
def main(files: tuple[str, ...], each: int, seed: int, only: tuple[int, ...], least: float) -> None:
    """Prints each survivor as a difference, then a table of all."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder))
        copy.check_own()
        tests = quick_tests(copy.folder)
        lines = executed(copy, tests)
        drawn = [(file, one) for file in files or CORE for one in _drawn(copy.folder / file, each, f"{seed} {file}")]
        numbered = {number: one for number, one in enumerate(drawn, 1) if not only or number in only}
        for (number, (file, mutant)), said in zip(
            numbered.items(), verdicts(copy, list(numbered.values()), lines, tests), strict=True
        ):
            found[file][said] += 1
            if said in ("survived", "unseen"):
                lost = mutant.diff((copy.folder / file).read_text())
                click.echo(f"{number}: {file}:{mutant.line} {mutant.kind} {said}\n{lost}\n")
    share = _table(found)
    sys.exit(share < least)


def _drawn(path: Path, each: int, seed: str) -> list[SourceMutant]:
    every = source_mutants(path.read_text())
    return sorted(random.Random(seed).sample(every, min(each, len(every))), key=lambda one: one.start)


def _table(found: dict[str, Counter[str]]) -> float:
    """Prints the figures; returns the percentage that was noticed."""
    columns = ("killed", "timed out", "survived", "unseen")
    click.echo(f"| file | mutants | {' | '.join(columns)} | noticed |\n|---|{'---|' * (len(columns) + 2)}")
    whole: Counter[str] = Counter()
    for file, counts in [*found.items(), ("all", whole)]:
        whole += counts if file != "all" else Counter()
        noticed = 100 * (counts["killed"] + counts["timed out"]) / max(counts.total(), 1)
        figures = " | ".join(str(counts[column]) for column in columns)
        click.echo(f"| {file} | {counts.total()} | {figures} | {noticed:.1f} % |")
    return 100 * (whole["killed"] + whole["timed out"]) / max(whole.total(), 1)


if __name__ == "__main__":
    main()
