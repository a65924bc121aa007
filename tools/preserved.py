"""What tools leave of exotic valid models, and what they do with bad files.

    python tools/preserved.py
    python tools/preserved.py --tool graphopt --tool onnxslim --only control/ --list

Each model of tests/corpora/exotic is written into a folder of its own and given to each tool, in a child process that
may take 8 GB and 20 seconds. What comes out is judged here, the first that holds: the input files were changed; bytes
went into the output that the model does not read; the tool crashed; hung; refused the model with an error; wrote
nothing; the output computes something else (onnxruntime, its optimizer off); it lost something (inputs, outputs,
metadata, training, functions that are needed, or what took the original, onnx.checker or onnxruntime, takes it no
more); else it is preserved or better. The files of tests/corpora/bad are to be refused, each with an error, and nothing
is to be written.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from preserved_tools import TOOLS, Bench
from rich.console import Console
from rich.table import Table

from graphopt.errors import GraphoptError
from graphopt.runtime import Runner

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from corpora.bad import BAD, MARKER, Bad, write
from corpora.bad_run import snapshot
from corpora.exotic import EXOTICS, Exotic, drawn
from corpora.exotic.kept import differences

OUTCOMES = (
    "preserved or better",
    "silently wrong",
    "lost something",
    "wrote nothing",
    "refused",
    "crashed",
    "hung",
    "leaked",
    "changed its input",
)
BAD_OUTCOMES = (
    "refused, nothing written",
    "refused, something written",
    "accepted",
    "out of memory",
    "crashed",
    "hung",
    "leaked",
    "changed its input",
)
_SECRET = b"SECRET"


def judged(exotic: Exotic, bench: Bench, runner: Runner, folder: Path) -> tuple[str, str]:
    """(outcome, why) of one model."""
    source = exotic.write(folder)
    before = digests(folder)
    output = folder / "out.onnx"
    ending = bench.run(source, output)
    if any(digests(folder).get(name) != digest for name, digest in before.items()):
        return "changed its input", "files that were there"
    new = [path for path in folder.rglob("*") if path.is_file() and str(path.relative_to(folder)) not in before]
    if any(_SECRET in path.read_bytes() for path in new):
        return "leaked", "bytes that the model does not read"
    if ending.kind != "done":
        return {"error": "refused"}.get(ending.kind, ending.kind), ending.said
    if not output.exists():
        return "wrote nothing", ""
    lost = loss(exotic, source, output, runner)
    if lost[:1] != [_NO_LOAD] and exotic.runs and not exotic.random:
        try:
            wrong = differing(exotic, source, output, runner)
        except GraphoptError as error:
            lost.append(f"it does not run: {error.message}")
        else:
            if wrong:
                return "silently wrong", f"'{wrong[0]}' differs"
    return ("lost something", "; ".join(lost)) if lost else ("preserved or better", "")


def judged_bad(bad: Bad, bench: Bench, folder: Path) -> tuple[str, str]:
    """(outcome, why) of one bad file."""
    source = write(bad, folder / "models")
    before = snapshot(folder)
    ending = bench.run(source, folder / "models" / "out.onnx")
    after = snapshot(folder)
    new = [folder / name for name in after.keys() - before.keys()]
    if any(after.get(name) != was for name, was in before.items() if name != source.parent.name):
        return "changed its input", "files that were there"
    if any(MARKER[:8] in path.read_bytes() for path in new if path.is_file()):
        return "leaked", "bytes of another folder"
    if any(word in ending.said for word in ("MemoryError", "bad_alloc", "cannot allocate")):
        return "out of memory", ending.said
    if ending.kind == "error":
        return "refused, something written" if new else "refused, nothing written", ending.said
    return ("accepted", "and written" if new else "but nothing written") if ending.kind == "done" else (ending.kind, "")


_NO_LOAD = "onnxruntime does not load it"


def loss(exotic: Exotic, source: Path, output: Path, runner: Runner) -> list[str]:
    """What is not there any more."""
    found = []
    if exotic.loads:
        try:
            runner.load(output, optimize=False).close()
        except GraphoptError:
            found.append(_NO_LOAD)
    if exotic.checked:
        try:
            onnx.checker.check_model(str(output))
        except Exception as error:
            found.append(f"onnx.checker: {str(error).splitlines()[0]}")
    try:
        after = onnx.load(output, load_external_data=False)
    except Exception as error:
        return [*found, f"onnx does not read it: {error}"]
    return found + differences(onnx.load(source, load_external_data=False), after)


def differing(exotic: Exotic, source: Path, output: Path, runner: Runner) -> list[str]:
    """The outputs that are not those of the original. Raises: GraphoptError where the model does not run."""
    made = exotic.make()
    feeds = dict(made.feeds) if made.feeds is not None else drawn(made.proto)
    with runner.load(source, optimize=False) as session:
        expected = session.run(feeds)
    with runner.load(output, optimize=False) as session:
        found = session.run({port.name: feeds[port.name] for port in session.inputs if port.name in feeds})
    # One that is called otherwise is lost, which is told elsewhere.
    return [name for name in expected if name in found and not same(expected[name], found[name])]


def same(one: Any, other: Any) -> bool:
    """Equal results: floats to their rounding, NaN as NaN, all else exactly."""
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if one is None or other is None:
        return one is other
    a, b = np.asarray(one), np.asarray(other)
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    if a.dtype.kind != "f":
        return a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes()
    tolerance = 2e-3 if a.dtype == np.float16 else 1e-4
    return bool(np.allclose(a, b, tolerance, tolerance, equal_nan=True))


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def swept(tool: str, models: Sequence[Exotic]) -> Iterator[tuple[Exotic, str, str]]:
    """Each model with its outcome and why."""
    with Bench(tool) as bench, Runner(timeout=60) as runner:
        for exotic in models:
            folder = Path(tempfile.mkdtemp(prefix="preserved-"))
            try:
                yield exotic, *judged(exotic, bench, runner, folder)
            finally:
                shutil.rmtree(folder)


def swept_bad(tool: str, files: Sequence[Bad]) -> Iterator[tuple[Bad, str, str]]:
    """Each bad file with its outcome and why."""
    with Bench(tool) as bench:
        for bad in files:
            folder = Path(tempfile.mkdtemp(prefix="preserved-"))
            try:
                yield bad, *judged_bad(bad, bench, folder)
            finally:
                shutil.rmtree(folder)


@click.command(help=__doc__)
@click.option("--tool", "tools", multiple=True, type=click.Choice(list(TOOLS)), help="only these")
@click.option("--only", default="", help="models whose names contain this")
@click.option("--list", "listed", is_flag=True, help="say which model was not preserved, and why")
def main(tools: tuple[str, ...], only: str, listed: bool) -> None:
    console = Console()
    models = [exotic for exotic in EXOTICS if only in exotic.name]
    files = [bad for bad in BAD if only in bad.name]
    sweeps: list[tuple[str, int, tuple[str, ...], Callable[[str], Iterator[tuple[Exotic | Bad, str, str]]]]] = [
        ("exotic valid models", len(models), OUTCOMES, lambda tool: swept(tool, models)),
        ("bad files", len(files), BAD_OUTCOMES, lambda tool: swept_bad(tool, files)),
    ]
    for title, number, outcomes, sweep in sweeps:
        counts: dict[str, Counter[str]] = {}
        for tool in (tools or TOOLS) if number else ():
            counts[tool] = Counter()
            for case, outcome, why in sweep(tool):
                counts[tool][outcome] += 1
                if listed and outcome != outcomes[0]:
                    console.print(f"{tool}: {case.name}: {outcome}: {why[:200]}", markup=False, highlight=False)
        table = Table(f"{number} {title}", *counts)
        for outcome in outcomes:
            table.add_row(outcome, *(str(found[outcome]) for found in counts.values()))
        console.print(table)


if __name__ == "__main__":
    main()
