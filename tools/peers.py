"""Paired latency of transformer exports: as exported, and after each of several optimizers.

    python tools/zoo.py export bert-base --out exports
    python tools/peers.py exports/bert-base.*.onnx --batch 1 --batch 8 --length 128 --threads 2 --runs 30

Every optimizer writes a model, all models of one export run in turn in one process, each in onnxruntime's default
session. A figure is the ratio of medians to the export itself with its 95 % interval; the last column is that of
graphopt to the fastest of the others. An optimizer that fails, or whose model does not load, shows a dash and its error
below the table. With `--profile`, where the time goes: milliseconds a run of each kind of operator, from onnxruntime's
own profile of the same models, one table a batch; what takes under a hundredth everywhere is summed up as "others".
"""

import logging
import tempfile
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

import graphopt
from graphopt.bench.paired import ratio_of_medians
from graphopt.runtime import Kernel, RunError, Runner


def by_graphopt(source: Path, output: Path) -> None:
    graphopt.fuse(source, output, verify="off")


def by_onnxruntime(source: Path, output: Path) -> None:
    from onnxruntime.transformers import optimizer

    # It has no type for the other models; this one finds the heads by itself, or nothing.
    kind = next((kind for kind in ("gpt2", "vit") if source.name.startswith(kind)), "bert")
    model = optimizer.optimize_model(str(source), model_type=kind, num_heads=0, hidden_size=0, opt_level=0)
    model.save_model_to_file(str(output))


def by_onnxscript(source: Path, output: Path) -> None:
    import onnx_ir
    from onnxscript.rewriter import ort_fusions

    model, _ = ort_fusions.optimize_for_ort(onnx_ir.load(source))
    onnx_ir.save(model, output, external_data=f"{output.name}.data")


OPTIMIZERS: dict[str, Callable[[Path, Path], None]] = {
    "onnxruntime": by_onnxruntime,
    "onnxscript": by_onnxscript,
    "graphopt": by_graphopt,
}


def feeds(path: Path, batch: int, length: int) -> dict[str, np.ndarray[Any, Any]]:
    """Token ids, a mask without padding, segment zero; an image of standard normal pixels."""
    rng = np.random.default_rng(0)
    inputs = onnx.load(path, load_external_data=False).graph.input
    shape = (batch, length)
    made = {"input_ids": rng.integers(2, 100, shape), "attention_mask": np.ones(shape, np.int64)}
    for value in inputs:
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if len(sizes) == 4:
            made[value.name] = rng.standard_normal((batch, *sizes[1:])).astype(np.float32)
    return {value.name: made.get(value.name, np.zeros(shape, np.int64)) for value in inputs}


def paired(models: dict[str, Path], inputs: dict[str, Any], runs: int, threads: int) -> dict[str, list[float]]:
    """Seconds of each run, by optimizer; a model that does not load is left out."""
    with Runner(tf32=True) as runner, ExitStack() as stack:
        sessions = {}
        for name, path in models.items():
            with suppress(RunError):
                sessions[name] = stack.enter_context(runner.load(path, optimize=True, threads=threads))
        seconds = runner.time(list(sessions.values()), inputs, runs=runs, warmup=3)
        return {name: list(times) for name, times in zip(sessions, seconds, strict=True)}


def by_kind(kernels: list[Kernel], runs: int) -> dict[str, float]:
    """Milliseconds by kind of operator, the median of the runs; each ran the same kernels in the same order."""
    each = len(kernels) // runs
    kinds: dict[str, Any] = defaultdict(lambda: np.zeros(runs))
    for at, kernel in enumerate(kernels[: each * runs]):
        kinds[kernel.op][at // each] += kernel.micros / 1e3
    return defaultdict(float, {kind: float(np.median(times)) for kind, times in kinds.items()})


def profiled(models: dict[str, Path], inputs: dict[str, Any], runs: int, threads: int) -> Table:
    """Milliseconds a run by kind of operator and optimizer."""
    spent: dict[str, dict[str, float]] = {}
    with Runner(tf32=True) as runner, ExitStack() as stack:
        loaded = {
            name: stack.enter_context(runner.load(path, optimize=True, threads=threads, profile=True))
            for name, path in models.items()
        }
        for _ in range(runs):
            for session in loaded.values():
                session.run(inputs)
        for name, session in loaded.items():
            spent[name] = by_kind(session.kernels(), runs)
    total = {name: sum(kinds.values()) for name, kinds in spent.items()}
    every = {kind for kinds in spent.values() for kind in kinds}
    small = {kind for kind in every if all(spent[name][kind] < total[name] / 100 for name in spent)}
    order = sorted(every - small, key=lambda kind: -max(kinds[kind] for kinds in spent.values()))
    table = Table("ms a run in", *spent)
    for kind in order:
        table.add_row(kind, *(f"{kinds[kind]:.2f}" if kind in kinds else "" for kinds in spent.values()))
    table.add_row("others", *(f"{sum(kinds[kind] for kind in small):.2f}" for kinds in spent.values()))
    table.add_row("all", *(f"{total[name]:.2f}" for name in spent))
    return table


def interval(times: list[float], reference: list[float]) -> str:
    """The ratio of medians with its interval."""
    ratio = ratio_of_medians(times, reference)
    return f"{ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def built(source: Path, folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """(models by optimizer, errors by optimizer)."""
    models, failed = {"as exported": source}, {}
    for name, optimizer in OPTIMIZERS.items():
        target = folder / f"{source.stem}.{name}.onnx"
        try:
            optimizer(source, target)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        else:
            models[name] = target
    return models, failed


@click.command(help=__doc__)
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--batch", "batches", multiple=True, type=int, default=(1, 8))
@click.option("--length", default=128)
@click.option("--threads", default=2)
@click.option("--runs", default=30)
@click.option("--profile", is_flag=True, help="Where the time goes, by kind of operator.")
def main(
    models: tuple[Path, ...], batches: tuple[int, ...], length: int, threads: int, runs: int, profile: bool
) -> None:
    logging.disable(logging.WARNING)
    console = Console(width=160)
    table = Table("export", "batch", "as exported", *OPTIMIZERS, "graphopt to the best other")
    for source in models:
        with tempfile.TemporaryDirectory() as scratch:
            made, failed = built(source, Path(scratch))
            for batch in batches:
                inputs = feeds(source, batch, length)
                times = paired(made, inputs, runs, threads)
                raw = times["as exported"]
                best = min((name for name in times if name != "graphopt"), key=lambda name: np.median(times[name]))
                cells = [interval(times[name], raw) if name in times else "-" for name in OPTIMIZERS]
                ours = interval(times["graphopt"], times[best])
                table.add_row(source.stem, str(batch), f"{np.median(raw) * 1e3:.1f} ms", *cells, ours)
                if profile:
                    able = {name: path for name, path in made.items() if name in times}
                    console.print(f"{source.stem}, batch {batch}", profiled(able, inputs, runs, threads))
            for name, error in failed.items():
                console.print(f"{source.stem}: {name}: {error}")
    console.print(table)


if __name__ == "__main__":
    main()
