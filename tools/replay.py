"""Fuse a folder of exports and say what came out; compare with the snapshot of the last commit.

For each `<name>.onnx` with torch's own inputs and outputs beside it (`<name>.npz`, as tools/zoo.py writes them) and
each target: what is fused, by meaning, how many attention kernels onnxruntime's profile shows, which parts are left,
the verdict, and the error against torch before and after. What depends on the machine (seconds, errors) is printed but
is not in the snapshot, so a change of the snapshot is a change of the compiler.

    python tools/zoo.py export bert-tiny --out exports
    python tools/replay.py exports --snapshot tools/replay.json        # prints what differs; exit 1 if something does
    python tools/replay.py exports --snapshot tools/replay.json --update
"""

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

import graphopt
from graphopt.pipeline.meanings import MEANINGS
from graphopt.runtime import Runner

Arrays = dict[str, np.ndarray[Any, Any]]
AGREES = 1e-3
"""Below this share an export computes what torch does."""
LEFT = ("Softmax", "Erf", "Pow", "ReduceMean", "IsNaN", "Sqrt", "Tanh")


def cases(path: Path) -> Iterator[tuple[str, Arrays, Arrays]]:
    """(case, inputs, torch's outputs) of one export."""
    with np.load(path.with_suffix(".npz")) as stored:
        names = sorted({key.split("/")[0] for key in stored.files})
        for name in names:
            parts: dict[str, Arrays] = {"in": {}, "out": {}}
            for key in stored.files:
                case, kind, value = key.split("/", 2)
                if case == name:
                    parts[kind][value] = stored[key]
            yield name, parts["in"], parts["out"]


def errors(runner: Runner, model: Path, reference: Path, *, optimize: bool) -> float:
    """The largest difference from torch over all cases, as a share of the rms of the output.

    On a fully masked row an export need not agree with torch (see tools/zoo.py): in a case where the raw export is off,
    it is the reference instead.
    """
    worst = 0.0
    with runner.load(model, optimize=optimize) as session, runner.load(reference, optimize=False) as raw:
        wanted = {port.name for port in session.inputs}
        for _, inputs, outputs in cases(reference):
            feeds = {name: value for name, value in inputs.items() if name in wanted}
            exported = raw.run(feeds)
            expected = outputs if share(exported, outputs) < AGREES else exported
            worst = max(worst, share(session.run(feeds), expected))
    return worst


def share(found: Arrays, expected: Arrays) -> float:
    """The largest difference, as a share of the rms of the output it is in."""
    return max(
        float(np.abs(found[name] - value).max() / (np.sqrt(np.mean(np.square(value, dtype=np.float64))) or 1.0))
        for name, value in expected.items()
    )


def attention_kernels(runner: Runner, model: Path, inputs: Arrays) -> int:
    """How many attention kernels ran, by onnxruntime's profile of its default session."""
    with runner.load(model, optimize=True, profile=True) as session:
        session.run({port.name: inputs[port.name] for port in session.inputs})
        return sum(kernel.op in ("Attention", "MultiHeadAttention") for kernel in session.kernels())


def replay(runner: Runner, path: Path, target: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fuses one export: (what belongs in the snapshot, what depends on the machine)."""
    output = folder / path.name
    start = time.process_time()
    result = graphopt.fuse(path, output, target=target)
    seconds = time.process_time() - start
    row: dict[str, Any] = {
        "verdict": result.verdict,
        "nodes": [sum(result.ops_before.values()), sum(result.ops_after.values())],
        "fused": {name: count for name, count in result.fused.items() if name != "Softmax"},
        "left": {op: result.ops_after[op] for op in LEFT if result.ops_after[op]},
        "rules": dict(sorted(Counter(site.rule for site in result.trace.sites).items())),
        "rolled back": len(result.rolled_back),
    }
    loose: dict[str, Any] = {"seconds": seconds}
    if result.output is None:
        return row | {"error": str(result.error)}, loose
    model = onnx.load(output, load_external_data=False)
    row["domains"] = sorted({node.domain for node in model.graph.node if node.domain})
    if not row["domains"]:
        onnx.checker.check_model(str(output), full_check=True)
    _, inputs, _ = next(cases(path))
    row["attention kernels"] = attention_kernels(runner, output, inputs)
    loose["raw"] = errors(runner, path, path, optimize=False)
    loose["fused"] = max(errors(runner, output, path, optimize=mode) for mode in (False, True))
    return row, loose


def show(rows: dict[str, dict[str, Any]], loose: dict[str, dict[str, Any]], console: Console) -> None:
    """One line for each export and target."""
    meanings = sorted(set(MEANINGS.values()) & {name for row in rows.values() for name in row["fused"]})
    table = Table("export", "verdict", "nodes", *meanings, "kernels", "left", "torch: raw", "fused", "CPU s")
    for name, row in rows.items():
        figures = loose[name]
        left = " ".join(f"{op} {count}" for op, count in row["left"].items())
        error = [f"{figures[key]:.1e}" if key in figures else "-" for key in ("raw", "fused")]
        counts = [str(row["fused"].get(meaning, 0)) for meaning in meanings]
        nodes = " → ".join(map(str, row["nodes"]))
        kernels = str(row.get("attention kernels", "-"))
        table.add_row(name, row["verdict"], nodes, *counts, kernels, left, *error, f"{figures['seconds']:.1f}")
    console.print(table)


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What changed, one line for each figure; only exports that both know."""
    lines = []
    for name in sorted(old.keys() & new.keys()):
        for key in sorted(old[name].keys() | new[name].keys()):
            before, after = old[name].get(key), new[name].get(key)
            if before != after:
                lines.append(f"{name}: {key}: {before} → {after}")
    return lines


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--pattern", default="*.onnx", help="Which exports, as a glob.")
@click.option("--target", "targets", multiple=True, default=("ort-cpu", "onnx"))
@click.option("--snapshot", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--update", is_flag=True, help="Write the snapshot instead of comparing with it.")
def main(folder: Path, pattern: str, targets: tuple[str, ...], snapshot: Path | None, update: bool) -> None:
    rows: dict[str, dict[str, Any]] = {}
    loose: dict[str, dict[str, Any]] = {}
    with Runner() as runner, tempfile.TemporaryDirectory() as scratch:
        for path in sorted(path for path in folder.glob(pattern) if path.with_suffix(".npz").exists()):
            for target in targets:
                name = f"{path.stem} {target}"
                rows[name], loose[name] = replay(runner, path, target, Path(scratch))
                print(name, rows[name]["verdict"], file=sys.stderr)
    show(rows, loose, Console(width=200))
    if snapshot is None:
        return
    old = json.loads(snapshot.read_text()) if snapshot.exists() else {}
    if update or not old:
        snapshot.write_text(json.dumps({**old, **rows}, indent=1, sort_keys=True) + "\n")
        return
    changed = differences(old, rows)
    print("\n".join(changed) or "nothing differs from the snapshot")
    sys.exit(bool(changed))


if __name__ == "__main__":
    main()
