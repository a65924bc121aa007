"""What quantization costs and gains: one table for a model, of graphopt's modes and of others.

    python tools/quantized_models.py --out FOLDER --minilm WHEEL
    python tools/quantized.py minilm.ts --data FOLDER --out WRITTEN --nncf PYTHON

Models are those of `quantized_models.py`. Everything is calibrated on the split `calib`; where a peer has settings, the
best on `search` is taken, of those that run nine tenths of the products on integers; figures are of `eval`, or with
`--final` of `final`, which nothing is chosen by. Columns:

- the accuracy, of which the first figure chooses: for MiniLM mean and worst cosine of sentence embeddings (mean over
  the mask) and the overlap of the ten nearest neighbours among the sentences; for digits the relative error of the
  logits (root of the summed squares) and the share of right answers; else that relative error;
- the size in MB; of the products with constant weights, those that run on integers, and those of which only the weights
  are integers (`+n`), as onnxruntime's optimized graph has them;
- time as a ratio to the float model, with its 95 % interval: paired, interleaved runs in one process; CPU time with one
  thread, else by the clock.

Written models stay in `--out`, and are built once. NNCF needs packages of its own: `--nncf` is the Python that has it
(`pip install nncf==3.0.0 onnxruntime`).
"""

import logging
import platform
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from quantized_peers import BEST_STATIC, FUSED, ORT, OURS, Build, Data, blocks, nncf
from rich.console import Console
from rich.table import Table

from graphopt.bench.paired import ratio_of_medians
from graphopt.quantize.proof.prove import prove
from graphopt.runtime import Runner

Array = np.ndarray[Any, Any]
Scores = dict[str, float]

NEARLY_ALL = 0.9
"""The share of products on integers from which settings of a peer take part in the choice of its best."""


@dataclass(frozen=True)
class Subject:
    """A model to quantize: its data, its accuracy (the first figure chooses), what it is timed on, and its variants."""

    data: str
    score: Callable[[list[Array], list[Array], Data, str], Scores]
    timed: tuple[tuple[int, ...], ...]
    threads: int = 1
    kinds: tuple[str, ...] = ("ours", "ort", "best", "nncf")


def embeddings(expected: list[Array], found: list[Array], data: Data, split: str) -> Scores:
    """Cosines of sentence embeddings, and how many of the ten nearest sentences stay among them."""
    masks = [feed["attention_mask"] for feed in data.feeds(split)]
    a, b = pooled(expected, masks), pooled(found, masks)
    cosine = (a * b).sum(1)
    shared = [len(set(x) & set(y)) / 10 for x, y in zip(nearest(a), nearest(b), strict=True)]
    return {"cosine": float(cosine.mean()), "worst": float(cosine.min()), "top 10": float(np.mean(shared))}


def pooled(hidden: list[Array], masks: list[Array]) -> Array:
    """Unit vectors (N, W): means over the mask."""
    rows = [
        (states * mask[..., None]).sum(1) / mask.sum(1)[:, None] for states, mask in zip(hidden, masks, strict=True)
    ]
    vectors = np.concatenate(rows).astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def nearest(vectors: Array) -> Array:
    """The ten nearest others of each vector."""
    close = vectors @ vectors.T
    np.fill_diagonal(close, -np.inf)
    return np.argsort(-close, axis=1)[:, :10]


def answers(expected: list[Array], found: list[Array], data: Data, split: str) -> Scores:
    """Relative error of the logits, and the share of right answers."""
    right = np.concatenate(found).argmax(1) == data.labels(split)
    return errors(expected, found, data, split) | {"right": float(right.mean())}


def errors(expected: list[Array], found: list[Array], data: Data, split: str) -> Scores:
    """Relative error of the output over all feeds."""
    a, b = (np.concatenate([part.ravel() for part in parts]).astype(np.float64) for parts in (expected, found))
    return {"error": float(np.linalg.norm(a - b) / np.linalg.norm(a))}


SUBJECTS = {
    "minilm.ts": Subject("minilm", embeddings, ((1, 32), (8, 32), (1, 128), (8, 128))),
    "minilm.dynamo": Subject("minilm", embeddings, ((1, 32), (8, 32))),
    "digits_vit": Subject("digits_vit", answers, ((1,), (32,))),
    "digits_cnn": Subject("digits_cnn", answers, ((1,), (32,))),
    "bert": Subject("bert", errors, ((1, 128),), threads=2, kinds=("dynamic", "fused")),
    "llama4": Subject("llama4", errors, ((1, 1), (1, 64)), kinds=("blocks",)),
}


def variants(subject: Subject, python: str | None) -> dict[str, Build]:
    """The variants of a subject that are built as they are."""
    dynamic = {name: build for name, build in OURS.items() if "dynamic" in name}
    kinds: dict[str, dict[str, Build]] = {
        "ours": OURS,
        "dynamic": dynamic,
        "ort": ORT,
        "fused": FUSED | {name: build for name, build in ORT.items() if "dynamic" in name},
        "blocks": blocks(32) | blocks(128),
        "nncf": {"NNCF": nncf(python)} if python else {},
    }
    return {name: build for kind in subject.kinds for name, build in kinds.get(kind, {}).items()}


@dataclass
class Bench:
    """One subject: its float model, where variants are written, and what has failed."""

    name: str
    subject: Subject
    source: Path
    out: Path
    data: Data
    split: str
    runner: Runner
    failed: dict[str, str]

    def written(self, name: str, build: Build) -> Path | None:
        """The variant's model, built unless it stands; None where that fails."""
        target = self.out / f"{self.name}.{name.replace(' ', '-').replace('/', '')}.onnx"
        if not target.exists():
            try:
                build(self.source, target, self.data)
            except Exception as error:
                self.failed[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
                logging.debug(traceback.format_exc())
                return None
        return target

    def scores(self, path: Path, split: str) -> Scores:
        """The accuracy of a model in onnxruntime's default session."""
        return self.subject.score(self.outputs(self.source, split), self.outputs(path, split), self.data, split)

    def outputs(self, path: Path, split: str) -> list[Array]:
        """The first output for each feed of a split."""
        with self.runner.load(path, optimize=True) as session:
            name = session.outputs[0].name
            return [session.run(feed)[name] for feed in self.data.feeds(split)]

    def best(self, title: str, candidates: Mapping[str, Build]) -> tuple[str, Path] | None:
        """The candidate with the best first figure on `search`, and its name: of those that are nearly all integer."""
        found = []
        for name, build in candidates.items():
            path = self.written(f"{title}, {name}", build)
            if path is not None and prove(self.runner, path, []).share >= NEARLY_ALL:
                figure, value = next(iter(self.scores(path, "search").items()))
                found.append((-value if figure == "error" else value, f"{title}: {name}", path))
        return max(found)[1:] if found else None

    def integers(self, path: Path) -> str:
        """Of the products with constant weights, those on integers, and those with integer weights."""
        proof = prove(self.runner, path, [])
        kinds = [run.kind for run in proof.products]
        weights = f" +{kinds.count('weights')}" if "weights" in kinds else ""
        return f"{kinds.count('integer')}{weights} / {len(kinds)}"

    def ratios(self, paths: Mapping[str, Path], shape: tuple[int, ...], runs: int) -> dict[str, str]:
        """Time of each model as a ratio to the float model."""
        feed = sized(next(iter(self.data.feeds(self.split))), shape)
        with ExitStack() as stack:
            sessions = [
                stack.enter_context(self.runner.load(path, optimize=True, threads=self.subject.threads))
                for path in (self.source, *paths.values())
            ]
            clocked = self.runner.clock(sessions, feed, runs=runs, warmup=3)
        taken = [one.cpu if self.subject.threads == 1 else one.wall for one in clocked]
        found = [ratio_of_medians(times, taken[0]) for times in taken[1:]]
        cells = [f"{one.ratio:.3f} [{one.low:.3f}, {one.high:.3f}]" for one in found]
        return {"float32": f"{1e3 * float(np.median(taken[0])):.2f} ms"} | dict(zip(paths, cells, strict=True))


def sized(feed: Mapping[str, Array], shape: tuple[int, ...]) -> dict[str, Array]:
    """A feed repeated and cut to a batch, and to a number of tokens where there are any."""
    sizes = {name: (*shape, *array.shape[len(shape) :]) for name, array in feed.items()}
    made = {name: np.resize(array, sizes[name]) for name, array in feed.items()}
    # Repeated rows would have holes in their masks.
    return made | ({"attention_mask": np.ones(shape, np.int64)} if "attention_mask" in feed else {})


def size(path: Path) -> float:
    """MB of a model and of the weights beside it."""
    return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*")) / 1e6


def table(bench: Bench, paths: Mapping[str, Path], runs: int) -> Table:
    """A row for the float model and for each variant."""
    every = {"float32": bench.source} | dict(paths)
    scores = {name: bench.scores(path, bench.split) for name, path in every.items()}
    times = {shape: bench.ratios(paths, shape, runs) for shape in bench.subject.timed} if runs else {}
    shapes = ["×".join(map(str, shape)) for shape in times]
    made = Table(f"{bench.name}, {bench.split}", *scores["float32"], "MB", "integer", *shapes)
    for name, path in every.items():
        figures = [f"{value:.5f}" for value in scores[name].values()]
        cells = [cell[name] for cell in times.values()]
        made.add_row(name, *figures, f"{size(path):.1f}", bench.integers(path), *cells)
    return made


def processor() -> str:
    """What ran: the processor, and whether it multiplies bytes in one step (VNNI)."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    facts = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    known = {name.strip(): value.strip() for name, value in facts.items()}
    vnni = [flag for flag in ("avx512_vnni", "avx_vnni", "amx_int8") if flag in known.get("flags", "").split()]
    family = f"family {known.get('cpu family', '?')} model {known.get('model', '?')}"
    return f"{known.get('model name', platform.processor())} ({family}), {', '.join(vnni) or 'no VNNI'}"


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(list(SUBJECTS)))
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--only", multiple=True, help="Variants whose names contain this.")
@click.option("--nncf", "python", help="The Python that has NNCF.")
@click.option("--final", is_flag=True, help="Report the split that nothing is chosen by.")
@click.option("--runs", default=30, help="Timed runs; 0: no times.")
def main(name: str, data: Path, out: Path, only: tuple[str, ...], python: str | None, final: bool, runs: int) -> None:
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    out.mkdir(parents=True, exist_ok=True)
    subject = SUBJECTS[name]
    with Runner(timeout=1800) as runner:
        split = "final" if final else "eval"
        source = data / f"{name}.onnx"
        bench = Bench(name, subject, source, out, Data(data / subject.data), split, runner, {})
        paths: dict[str, Path] = {}
        for title, build in variants(subject, python).items():
            if (not only or any(part in title for part in only)) and (path := bench.written(title, build)) is not None:
                paths[title] = path
        best = "onnxruntime static, best"
        if "best" in subject.kinds and (not only or any(part in best for part in only)):
            paths |= dict([chosen] if (chosen := bench.best(best, BEST_STATIC)) else [])
        console = Console(width=200)
        console.print(table(bench, paths, runs))
        console.print(f"{processor()}; onnxruntime {runner.version()}; {subject.threads} thread(s), {runs} paired runs")
        for title, error in bench.failed.items():
            console.print(f"{title}: {error}")


if __name__ == "__main__":
    main()
