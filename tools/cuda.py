"""Every check that needs a graphics card, in one table.

    python tools/cuda.py
    python tools/cuda.py --models exports/
    python tools/cuda.py --write
    python tools/cuda.py --provider cpu

Each fused operator of the table `ort-cuda`, in each element type, as the pair of graphs in tools/targets.toml. Its
parts on the CPU without optimization are the reference, the operator runs on the provider. In bfloat16, in which a CPU
does not compute, the parts are float32 between the same inputs and outputs. A row is `equal` only where the numbers
agree within the measured floor and the profile shows that the operator ran on the provider, or was spelled in parts
there; `absent` where onnxruntime has no such kernel for the type. Products are exact: TF32 is off. With `--models`,
every model of a folder is fused for the table's target, and checked as `graphopt fuse` checks it.

`the table says` is how the operator runs by the table (`?`: not known), `ran` how it did: native, expanded, on another
provider, or absent. `--write` puts that into the table. Nothing is timed. Without a card every row is `skipped`.

Exit code 0 if all is equal, or absent as the table says; 1 if something is unequal or could not be tried; else 4.
`--provider cpu` tries the script itself where there is no card.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx import TensorProto, helper
from rich.console import Console
from rich.progress import track
from rich.table import Table

import graphopt
import graphopt.targets
from graphopt.errors import GraphoptError
from graphopt.ir import Model, dtypes, load, model_to_proto
from graphopt.ir.infer import infer
from graphopt.ir.node import qualified
from graphopt.ir.text import parse
from graphopt.runtime import PROVIDERS, Kernel, RunError, Runner
from graphopt.targets import KernelEntry, target_named
from graphopt.verify import Options
from graphopt.verify.endtoend import compare_in
from graphopt.verify.inputs.sizes import shape_under
from graphopt.verify.parts import part
from graphopt.verify.runs import Runs

sys.path.insert(0, str(Path(__file__).parent))
from targets import OPSET, Spec, specs

TABLE = "ort-cuda"
TYPES = ("float32", "float16", "bfloat16")
TIMEOUT = 300.0
EXACT = {
    "com.microsoft.RotaryEmbedding": """p, n = Split(x, axis=-1, num_outputs=2)
      e = Unsqueeze(Gather(Concat(u, u, axis=-1), i), [1])  f = Unsqueeze(Gather(Concat(v, v, axis=-1), i), [1])
      y = Add(Mul(x, e), Mul(Concat(Neg(n), p, axis=-1), f))"""
}
"""Parts, where those that the kernel is timed against read other numbers than it."""


@dataclass(frozen=True)
class Row:
    """One check: of an operator in an element type, or of a model. `said` is how it runs by the table, `ran` how it did
    (empty: not seen)."""

    name: str
    dtype: str
    verdict: str
    said: str = ""
    ran: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Pair:
    """The parts and the operator `entry` in one element type."""

    entry: KernelEntry
    spec: Spec
    dtype: str

    @property
    def name(self) -> str:
        return qualified(self.entry.domain, self.entry.op)

    @property
    def parts(self) -> Model:
        written = self._model(EXACT.get(self.name, self.spec.parts))
        return load(in_float32(model_to_proto(written))) if self.dtype == "bfloat16" else written

    @property
    def fused(self) -> Model:
        model = self._model(self.spec.kernel)
        if not any(node.is_op(self.entry.op, self.entry.domain) for node in model.graph.ops()):
            raise ValueError(f"the kernel of {self.name} in targets.toml is without it")
        return model

    def _model(self, body: str) -> Model:
        model = parse(self.spec.graph(body, self.dtype), opset=max(OPSET, self.entry.since))
        infer(model)
        return model


def pairs(only: Sequence[str] = ()) -> list[Pair]:
    """Of all operators of the table, or of those called so; a row that is only a way of spelling is left out."""
    known = specs()
    rows = [row for row in target_named(TABLE).kernels.values() if row.domain != "ir" and (not only or row.op in only)]
    return [Pair(row, known[qualified(row.domain, row.op)], dtype) for row in rows for dtype in TYPES]


def in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """A bfloat16 graph that computes in float32: what it reads is cast, and what it gives is cast back."""
    graph = model.graph
    del graph.value_info[:]
    nodes = list(graph.node)
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype", "stash_type") and attribute.i == TensorProto.BFLOAT16:
                attribute.i = TensorProto.FLOAT
    read = [value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.BFLOAT16]
    read += [tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.BFLOAT16]
    given = [value.name for value in graph.output if value.type.tensor_type.elem_type == TensorProto.BFLOAT16]
    inner = {name: f"{name} (float32)" for name in (*read, *given)}
    for node in nodes:
        node.input[:] = [inner.get(name, name) for name in node.input]
        node.output[:] = [inner.get(name, name) for name in node.output]
    before = [helper.make_node("Cast", [name], [inner[name]], to=TensorProto.FLOAT) for name in read]
    after = [helper.make_node("Cast", [inner[name]], [name], to=TensorProto.BFLOAT16) for name in given]
    del graph.node[:]
    graph.node.extend([*before, *nodes, *after])
    return model


def checks(found: Sequence[Pair], provider: str) -> Iterator[Row]:
    """The rows of these pairs, in one child process."""
    with Runner(timeout=TIMEOUT) as runner:
        for pair in found:
            row = Row(pair.name, pair.dtype, "error", pair.entry.runs.get(pair.dtype, "?"))
            yield guarded(partial(checked, pair, row, provider, runner), row)


def checked(pair: Pair, row: Row, provider: str, runner: Runner) -> Row:
    reference, candidate = pair.parts, pair.fused
    options = Options(inputs=feeds(reference, pair.spec.sizes["small"]), providers=(provider,), timeout=TIMEOUT)
    with Runs(reference, options, runner) as runs:
        if provider in runner.available_providers():
            try:
                row = replace(row, ran=how_it_ran(runs, pair.entry, candidate, provider))
            except RunError as error:
                return replace(row, verdict="absent", ran="absent", reason=error.message)
        found = compare_in(runs, reference, candidate)
    reason = found.reason or next((line.reason for line in found.providers), "")
    return replace(row, verdict=found.verdict, reason=reason)


def feeds(model: Model, sizes: Mapping[str, int]) -> dict[str, np.ndarray[Any, Any]]:
    """Normal numbers, and small indices."""
    drawn = np.random.default_rng(0)
    found = {}
    for value in (node.output for node in model.graph.inputs):
        shape = shape_under(value.shape or (), sizes)
        numbers = drawn.normal(size=shape) if value.dtype in dtypes.FLOATS else drawn.integers(0, 2, shape)
        found[value.name] = np.asarray(numbers).astype(dtypes.to_numpy(value.dtype))
    return found


def how_it_ran(runs: Runs, entry: KernelEntry, model: Model, provider: str) -> str:
    """native, expanded, or on another provider. Raises: RunError where it does not."""
    whole = part(model, model.graph.outputs, runs.weights)
    with closing(whole.load(runs.runner, "the operator", provider=provider, profile=True)) as session:
        for feed in runs.feeds(session):
            session.run(feed.arrays)
        return placed(session.kernels(), entry, provider)


def placed(kernels: Sequence[Kernel], entry: KernelEntry, provider: str) -> str:
    own = [kernel for kernel in kernels if kernel.op == entry.op and kernel.domain in (entry.domain, None)]
    strays = sorted({kernel.provider for kernel in own or kernels if kernel.floats > 1} - {PROVIDERS[provider]})
    if strays:
        return f"on {', '.join(strays)}"
    return "native" if own else "expanded"


def models(folder: Path, provider: str) -> Iterator[Row]:
    """Each model of a folder, fused and checked, and not written."""
    for path in sorted(folder.glob("*.onnx")):
        row = Row(path.stem, "", "error")
        yield guarded(partial(fused, path, row, provider), row)


def fused(path: Path, row: Row, provider: str) -> Row:
    found = graphopt.fuse(path, target=TABLE, providers=(provider,), dry_run=True, timeout=TIMEOUT)
    said = [found.verification.reason] if found.verification is not None else [str(error) for error in found.errors]
    counts = ", ".join(f"{count} {op}" for op, count in found.fused.items())
    return replace(row, verdict=found.verdict, ran=counts, reason="; ".join(said))


def guarded(check: Callable[[], Row], row: Row) -> Row:
    """The row of a check; that of one that raises says what."""
    try:
        return check()
    except GraphoptError as error:
        return replace(row, reason=f"{error.code}: {error.message}")
    except Exception as error:
        return replace(row, reason=f"{type(error).__name__}: {error}")


def exit_code(rows: Sequence[Row]) -> int:
    verdicts = {"equal" if row.verdict == row.said == "absent" else row.verdict for row in rows}
    if verdicts & {"unequal", "error"}:
        return 1
    return 0 if verdicts == {"equal"} else 4


def shown(rows: Sequence[Row]) -> Table:
    table = Table("what", "type", "verdict", "the table says", "ran", "why")
    for row in rows:
        table.add_row(row.name, row.dtype, row.verdict, row.said, row.ran, row.reason.partition("\n")[0][:120])
    return table


def written(text: str, rows: Sequence[Row], runtime: str) -> str:
    """The table as text, with what was seen of each operator by element type; costs stay as they are."""
    seen: dict[str, dict[str, str]] = {}
    for row in rows:
        if row.ran and row.dtype:
            seen.setdefault(row.name, {})[row.dtype] = "absent" if row.ran.startswith("on ") else row.ran
    table = json.loads(text)
    for line in table["kernels"]:
        runs = seen.get(qualified(line["domain"], line["op"]), {})
        if runs:
            line["runs"] = line.get("runs", {}) | runs
    head = {**table, "runtime": f"onnxruntime {runtime}", "command": "python tools/cuda.py --write"}
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items() if key != "kernels"]
    kernels = ",\n".join(f"  {json.dumps(line, ensure_ascii=False)}" for line in table["kernels"])
    return "{\n" + ",\n".join(lines) + ',\n "kernels": [\n' + kernels + "\n ]\n}\n"


@click.command(help=__doc__)
@click.option("--only", multiple=True, help="A row, by the name of its operator; repeatable.")
@click.option(
    "--models", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Models to fuse."
)
@click.option("--provider", type=click.Choice(list(PROVIDERS)), default="cuda")
@click.option("--write", is_flag=True, help="Put how operators ran into the table.")
def main(only: tuple[str, ...], folder: Path | None, provider: str, write: bool) -> None:
    console = Console(width=180)
    chosen = pairs(only)
    rows = list(track(checks(chosen, provider), total=len(chosen), console=Console(stderr=True)))
    rows += models(folder, provider) if folder is not None else []
    console.print(shown(rows))
    if write and provider == "cuda":
        path = Path(graphopt.targets.__file__).parent / "tables" / f"{TABLE}.json"
        with Runner() as runner:
            path.write_text(written(path.read_text(), rows, runner.version()))
    sys.exit(exit_code(rows))


if __name__ == "__main__":
    main()
