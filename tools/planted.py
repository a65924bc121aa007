"""Plants mistakes in our own rules, one at a time, and shows that `graphopt fuse` catches them and names the rule.

    python tools/planted.py
    python tools/planted.py --only 3 --only 17

The table is `planted.toml`: what is wrong, in which rule, the text that is right and what stands there instead, and the
model that is fused. It is tried on a copy of the checkout in a temporary folder. A mistake is caught when its rule is
named, what is written is equal to the model, and the case that is kept is small, fails by its test, and passes by it
when the rule is right again. Exits with 1 when one is missed, or when the table is not true.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import onnx
from weaken import Copy, Removal, copied

from graphopt.bench import BertConfig, bert
from graphopt.ir import model_to_proto
from graphopt.ir.text import parse

TABLE = Path(__file__).with_suffix(".toml")
LARGEST = 15
"""Nodes that the case of one rule may have."""

_SECONDS = 120.0
_BERT = BertConfig(layers=2, hidden=64, heads=4, intermediate=128, vocabulary=100, positions=64, mask="product")


@dataclass(frozen=True)
class Mistake:
    """One mistake: `old` in `file` is right, `new` is not."""

    number: int
    stage: str
    rule: str
    claim: str
    file: str
    old: str
    new: str
    model: str

    def proto(self) -> onnx.ModelProto:
        """The model that is fused."""
        return bert(_BERT) if self.model == "bert" else model_to_proto(parse(self.model))

    @property
    def removal(self) -> Removal:
        """The same as what is taken away."""
        return Removal(self.number, self.stage, self.claim, self.file, self.old, self.new, ())


@dataclass(frozen=True)
class Caught:
    """What became of one mistake; `problem` is empty where it was caught as it should be."""

    problem: str
    nodes: int = 0
    replays: int = 0
    runs: int = 0
    seconds: float = 0.0


def mistakes(table: Path = TABLE) -> list[Mistake]:
    """All rows of the table, numbered from 1."""
    stages = tomllib.loads(table.read_text())
    rows = [(stage, row) for stage, found in stages.items() for row in found]
    return [Mistake(number, stage, **row) for number, (stage, row) in enumerate(rows, 1)]


def tried(copy: Copy, mistake: Mistake, folder: Path) -> Caught:
    """Plants one mistake in the copy, and fuses its model there."""
    count = (copy.folder / mistake.file).read_text().count(mistake.old)
    if count != 1:
        return Caught(f"the text is there {count} times")
    model = folder / "model.onnx"
    onnx.save(mistake.proto(), model)
    with copy.without(mistake.removal):
        report = _fused(copy, model, folder / "kept")
        caught = _judged(report, mistake)
        if caught.problem:
            return caught
        test = str(Path(report["blamed"][0]["case"]) / "test_case.py")
        if copy.test([test])[0] != 1:
            return Caught("its test does not fail")
    status, output = copy.test([test])
    return caught if status == 0 else Caught(f"its test fails with the right rule:\n{output}")


def _fused(copy: Copy, model: Path, kept: Path) -> dict[str, Any]:
    command = [str(copy.python), "-c", "from graphopt.cli import main; main()", "fuse", str(model)]
    options = ["--json", "-", "--keep-failed", str(kept)]
    done = subprocess.run([*command, *options], cwd=copy.folder, capture_output=True, text=True, timeout=_SECONDS)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        report = {"verdict": f"no report: {done.stderr}", "blamed": [], "output": None, "seconds": {}}
    return report


def _judged(report: dict[str, Any], mistake: Mistake) -> Caught:
    if not report["blamed"]:
        return Caught(f"nobody is blamed, and the verdict is {report['verdict']}")
    names = {one["rule"] for one in report["blamed"]}
    if names != {mistake.rule}:
        return Caught(f"blamed: {', '.join(sorted(names))}")
    if report["verdict"] != "equal":
        return Caught(f"the verdict is {report['verdict']}: {report['error']}")
    first = report["blamed"][0]
    if not first["test"] or not first["nodes"] <= LARGEST:
        return Caught(f"the case has {first['nodes']} nodes")
    return Caught("", first["nodes"], first["replays"], first["runs"], sum(report["seconds"].values()))


@click.command()
@click.option("--only", type=int, multiple=True, metavar="N", help="Only this row; may be given several times.")
def main(only: tuple[int, ...]) -> None:
    """Plants the mistakes, one after the other."""
    chosen = [mistake for mistake in mistakes() if not only or mistake.number in only]
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder))
        copy.check_own()
        click.echo("| | stage | rule | mistake | nodes | replays | regions run | seconds |")
        click.echo("|---|---|---|---|---|---|---|---|")
        for mistake in chosen:
            place = Path(folder) / f"mistake{mistake.number}"
            place.mkdir()
            found = tried(copy, mistake, place)
            missed += bool(found.problem)
            told = f"**{found.problem}** | | | |"
            if not found.problem:
                told = f"{found.nodes} | {found.replays} | {found.runs} | {found.seconds:.1f} |"
            click.echo(f"| {mistake.number} | {mistake.stage} | {mistake.rule} | {mistake.claim} | {told}")
    click.echo(f"\n{len(chosen) - missed} of {len(chosen)} caught, each by its name")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
