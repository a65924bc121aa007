"""Paired latency of transformer exports: as exported, and after each of several optimizers.

    python tools/zoo.py export bert-base --out exports
    python tools/peers.py exports/bert-base.*.onnx --batch 1 --batch 8 --length 128 --threads 2 --runs 30

Every optimizer writes a model, all models of one export run in turn in one process, each in onnxruntime's default
session. A figure is the ratio of medians to the export itself with its 95 % interval. An optimizer that fails, or whose
model does not load, shows a dash and its error below the table.
"""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

import graphopt
from graphopt.bench import time_models


def by_graphopt(source: Path, output: Path) -> None:
    graphopt.fuse(source, output, verify="off")


def by_onnxruntime(source: Path, output: Path) -> None:
    from onnxruntime.transformers import optimizer

    model = optimizer.optimize_model(str(source), model_type="bert", num_heads=12, hidden_size=768, opt_level=0)
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
    """Token ids, a mask without padding, segment zero: for each input of rank 2."""
    rng = np.random.default_rng(0)
    names = [value.name for value in onnx.load(path, load_external_data=False).graph.input]
    shape = (batch, length)
    made = {"input_ids": rng.integers(2, 1000, shape), "attention_mask": np.ones(shape, np.int64)}
    return {name: made.get(name, np.zeros(shape, np.int64)) for name in names}


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
def main(models: tuple[Path, ...], batches: tuple[int, ...], length: int, threads: int, runs: int) -> None:
    logging.disable(logging.WARNING)
    console = Console(width=160)
    table = Table("export", "batch", "as exported", *OPTIMIZERS)
    for source in models:
        with tempfile.TemporaryDirectory() as scratch:
            made, failed = built(source, Path(scratch))
            for batch in batches:
                timing = time_models(list(made.values()), feeds(source, batch, length), runs=runs, threads=threads)
                cells = dict(zip(made, timing.latencies, strict=True))
                row = [f"{cells['as exported'].median * 1e3:.1f} ms"]
                for name in OPTIMIZERS:
                    one = cells.get(name)
                    row.append(f"{one.ratio.ratio:.3f} [{one.ratio.low:.3f}, {one.ratio.high:.3f}]" if one else "-")
                table.add_row(source.stem, str(batch), *row)
            for name, error in failed.items():
                console.print(f"{source.stem}: {name}: {error}")
    console.print(table)


if __name__ == "__main__":
    main()
