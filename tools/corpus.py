"""Fuse a folder of models that another optimizer's tests expect fusions in; count what is reached, wrong, unloadable.

`expect.json` in the folder lists `{"file": ..., "expected_fused": {"Attention": 12, ...}}`. Expectations are counted by
meaning, whatever an op was lowered to: a residual and a LayerNormalization are a SkipLayerNormalization, so are the
embedding and its norm. A model that onnxruntime refuses before anything is done cannot count as unloadable afterwards.
What is missed is fused once more with the promise that every row of a mask allows something: GPT-2 masks with -1e4.

    python tools/corpus.py FOLDER
"""

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

import graphopt
from graphopt.errors import GraphoptError
from graphopt.pipeline.meanings import MEANINGS
from graphopt.runtime import RunError, Runner

PROMISE = "no-empty-rows"


def by_meaning(ops: Iterable[tuple[str, int]]) -> Counter[str]:
    """Counts by meaning; an op that has no other name counts as itself."""
    counts: Counter[str] = Counter()
    for op, number in ops:
        counts[MEANINGS.get(op, op)] += number
    return counts


def loads(runner: Runner, path: Path) -> bool:
    try:
        runner.load(path, optimize=False).close()
    except RunError:
        return False
    return True


def judge(
    runner: Runner, source: Path, expected: dict[str, int], output: Path, assume: Iterable[str] = ()
) -> tuple[str, str]:
    """(verdict, what is missing or wrong) for one model."""
    try:
        result = graphopt.fuse(source, output, allow_unverified=True, assume=assume, timeout=120)
    except GraphoptError as error:
        return "refused", str(error.message)
    found = by_meaning(result.ops_after.items())
    wanted = by_meaning(expected.items())
    missing = {name: f"{found[name]} of {count}" for name, count in wanted.items() if found[name] < count}
    if loads(runner, source) and result.output is not None and not loads(runner, output):
        return "unloadable", str(missing)
    if result.output is None:
        return "refused", str(result.error)
    if result.verdict == "unequal":
        return "wrong", str(result.error)
    return ("missed" if missing else "reached"), ", ".join(f"{name} {text}" for name, text in missing.items())


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    entries = json.loads((folder / "expect.json").read_text())
    table = Table("model", "verdict", "", f"if {PROMISE}")
    total: Counter[str] = Counter()
    with Runner() as runner, tempfile.TemporaryDirectory() as scratch:
        for number, entry in enumerate(entries):
            output = Path(scratch, f"{number}.onnx")
            task = (runner, folder / entry["file"], entry["expected_fused"], output)
            verdict, text = judge(*task)
            promised, _ = judge(*task, assume=[PROMISE]) if verdict == "missed" else ("", "")
            total.update([verdict, f"{promised} if {PROMISE}"] if promised == "reached" else [verdict])
            if verdict != "reached":
                table.add_row(entry["file"].removesuffix(".onnx"), verdict, text, promised)
            print(f"{number + 1}/{len(entries)}", entry["file"], verdict, file=sys.stderr)
    console = Console(width=180)
    console.print(table)
    console.print(", ".join(f"{verdict} {count}" for verdict, count in sorted(total.items())), f"of {len(entries)}")


if __name__ == "__main__":
    main()
