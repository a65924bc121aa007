"""Fuse a folder of exports and say what came out; compare with the snapshot of the last commit.

For each `<name>.onnx` with torch's own inputs and outputs (`<name>.npz`) and what ran in torch (`<name>.json`) beside
it, as tools/zoo.py writes them, and each target: what is fused, by meaning, of what could be; how many attention
kernels onnxruntime's profile shows; which parts are left; the verdict; the error against torch before and after;
whether the result is what it becomes when it is fused again. What depends on the machine (seconds, errors) is printed
but is not in the snapshot, so a change of the snapshot is a change of the compiler.

Then the share of what could be fused, by exporter and attention implementation, and for each block that is missing what
`explain` says. An attention counts only where a native kernel ran.

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
from graphopt.runtime import RunError, Runner, Session

Arrays = dict[str, np.ndarray[Any, Any]]
AGREES = 1e-3
"""Below this share an export computes what torch does."""
KERNELS = ("Attention", "MultiHeadAttention", "GroupQueryAttention")
ALONE = {
    "onnx": {"Swish": "no kernel: its operator is expanded at load, at 1.85 of the time of x·sigmoid(x)"},
    "ort-cpu": {"Mish": "no kernel: it stays spelled, at 0.07 of the time of the operator"},
}
"""By target, what is left as parts, and why."""
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
            exported = outputs_of(raw, feeds)
            if exported is None or share(exported, outputs) < floor(reference):
                exported = outputs
            worst = max(worst, share(session.run(feeds), exported))
    return worst


def outputs_of(session: Session, feeds: Arrays) -> Arrays | None:
    """The outputs of an export as it came; None where onnxruntime refuses to run it."""
    try:
        return session.run(feeds)
    except RunError:
        return None


def facts(path: Path) -> dict[str, Any]:
    """What tools/zoo.py says of an export: `ideal`, how many blocks of each meaning ran in torch; which meanings are
    left `alone`, and why; and the `floor`, how far from torch it may be; nothing where it says nothing."""
    said = path.with_suffix(".json")
    return dict(json.loads(said.read_text())) if said.exists() else {}


def floor(path: Path) -> float:
    """How far from torch an export may be, as a share of the rms of the output."""
    return max(AGREES, 2 * float(facts(path).get("floor", 0.0)))


def share(found: Arrays, expected: Arrays) -> float:
    """The largest difference, as a share of the rms of the output it is in."""
    return max(_share(found[name].astype(np.float64), value.astype(np.float64)) for name, value in expected.items())


def _share(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    if not np.array_equal(np.isnan(found), np.isnan(expected)):
        return float("inf")
    difference = np.abs(np.nan_to_num(found) - np.nan_to_num(expected))
    return float(difference.max(initial=0.0) / (np.sqrt(np.nanmean(np.square(expected))) or 1.0))


def attention_kernels(runner: Runner, model: Path, inputs: Arrays) -> int:
    """How many attention kernels ran, by onnxruntime's profile of its default session."""
    with runner.load(model, optimize=True, profile=True) as session:
        session.run({port.name: inputs[port.name] for port in session.inputs})
        return sum(kernel.op in KERNELS for kernel in session.kernels())


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
    again = graphopt.fuse(output, target=target, verify="off")
    row["again"] = "the same" if again.ops_after == again.ops_before else "changes"
    _, inputs, _ = next(cases(path))
    row["attention kernels"] = attention_kernels(runner, output, inputs)
    with runner.load(path, optimize=False) as raw:
        if outputs_of(raw, {port.name: inputs[port.name] for port in raw.inputs}) is None:
            row["as exported"] = "does not run"
    loose["raw"] = errors(runner, path, path, optimize=False) if "as exported" not in row else float("nan")
    loose["fused"] = max(errors(runner, output, path, optimize=mode) for mode in (False, True))
    row["torch"] = "agrees" if loose["fused"] <= max(floor(path), 2 * loose["raw"]) else "differs"
    said = facts(path)
    known = said.get("ideal", {})
    row["alone"] = {name: why for name, why in (said.get("alone", {}) | ALONE.get(target, {})).items() if name in known}
    wanted = {name: count for name, count in known.items() if name not in row["alone"]}
    found = row["fused"] | {"Attention": min(row["attention kernels"], row["fused"].get("Attention", 0))}
    row["blocks"] = {name: [found.get(name, 0), count] for name, count in wanted.items()}
    return row, loose


def coverage(rows: dict[str, dict[str, Any]]) -> Table:
    """What was found of what there is, by exporter and attention implementation: a line for each and target."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, row in rows.items():
        export, target = name.split(" ")
        groups.setdefault(f"{'.'.join(export.split('.')[1:3])} {target}", []).append(row)
    meanings = sorted({meaning for row in rows.values() for meaning in row.get("blocks", ())})
    table = Table("group", "exports", "equal", "agree with torch", "same again", *meanings)
    for group, members in sorted(groups.items()):
        counts = [
            [sum(row.get("blocks", {}).get(meaning, (0, 0))[part] for row in members) for part in (0, 1)]
            for meaning in meanings
        ]
        sums = [sum(row.get(key) == good for row in members) for key, good in GOOD.items()]
        table.add_row(group, *map(str, (len(members), *sums)), *(f"{found} of {all_}" for found, all_ in counts))
    return table


GOOD = {"verdict": "equal", "torch": "agrees", "again": "the same"}


def missing(name: str, row: dict[str, Any], path: Path) -> list[str]:
    """What of an export is not fused, or invented, and what explain says of it, a line each."""
    lines = [
        f"{name}: {meaning}: {found} of {count}"
        for meaning, (found, count) in row.get("blocks", {}).items()
        if found != count
    ]
    lines += [f"{name}: {key}: {row.get(key, row.get('error'))}" for key, good in GOOD.items() if row.get(key) != good]
    lines += [f"{name}: {meaning} is left alone: {reason}" for meaning, reason in row.get("alone", {}).items()]
    if any(found < count for found, count in row.get("blocks", {}).values()):
        report = graphopt.explain(path, target=name.split(" ")[1])
        for rule in report.rules:
            if rule.stage in ("recover", "lower"):
                lines += [f"    {rule.name}: {group.roots} × {group.reason}" for group in rule.near[:2]]
    return lines


def show(rows: dict[str, dict[str, Any]], loose: dict[str, dict[str, Any]], console: Console) -> None:
    """One line for each export and target."""
    named = {name for row in rows.values() for name in row.get("fused", ())}
    meanings = sorted(set(MEANINGS.values()) & named)
    table = Table("export", "verdict", "nodes", *meanings, "kernels", "left", "torch: raw", "fused", "CPU s")
    for name, row in rows.items():
        figures = loose[name]
        left = " ".join(f"{op} {count}" for op, count in row.get("left", {}).items())
        error = [f"{figures[key]:.1e}" if key in figures else "-" for key in ("raw", "fused")]
        counts = [str(row.get("fused", {}).get(meaning, 0)) for meaning in meanings]
        nodes = " → ".join(map(str, row.get("nodes", ())))
        kernels = str(row.get("attention kernels", "-"))
        seconds = f"{figures.get('seconds', 0.0):.1f}"
        table.add_row(name, row["verdict"], nodes, *counts, kernels, left, *error, seconds)
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
                try:
                    rows[name], loose[name] = replay(runner, path, target, Path(scratch))
                except Exception as error:
                    rows[name], loose[name] = {"verdict": "crash", "error": f"{type(error).__name__}: {error}"}, {}
                print(name, rows[name]["verdict"], file=sys.stderr)
    console = Console(width=200)
    show(rows, loose, console)
    console.print(coverage(rows))
    for name, row in rows.items():
        for line in missing(name, row, folder / f"{name.split(' ')[0]}.onnx"):
            console.print(line, markup=False)
    if snapshot is None:
        return
    old = json.loads(snapshot.read_text()) if snapshot.exists() else {}
    if update or not old:
        lines = (f"{json.dumps(name)}: {json.dumps(row, sort_keys=True)}" for name, row in sorted((old | rows).items()))
        snapshot.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        return
    changed = differences(old, rows)
    print("\n".join(changed) or "nothing differs from the snapshot")
    sys.exit(bool(changed))


if __name__ == "__main__":
    main()
