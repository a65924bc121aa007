"""What tools/kill.py kills: commands on a small BERT, the files they may change, and how whole those are."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort

from graphopt.bench.bert import BertConfig, bert

State = Literal["absent", "old", "new", "torn"]

_SMALL = BertConfig(layers=1, hidden=64, heads=2, intermediate=256, vocabulary=500, positions=64)
_OTHER = BertConfig(layers=1, hidden=64, heads=2, intermediate=256, vocabulary=500, positions=64, seed=1)
_NOT_TIMED = ("--allow-slower", "--no-cache", "--mode", "dynamic")
_FEEDS = {
    "input_ids": np.arange(14).reshape(2, 7) % 500,
    "attention_mask": np.array([[1] * 7, [1] * 4 + [0] * 3]),
    "token_type_ids": np.zeros((2, 7), np.int64),
}


@dataclass(frozen=True)
class Case:
    """A command and its files. `external` puts the weights of the input beside it, `old` a model where the output goes,
    `elsewhere` the output into another folder."""

    name: str
    command: Literal["fuse", "quantize"]
    external: bool = False
    old: bool = False
    in_place: bool = False
    elsewhere: bool = False
    reports: bool = False

    def prepare(self, root: Path) -> None:
        """Writes what is there before the run."""
        for folder in (root / "in", root / "out"):
            folder.mkdir()
        _write(_SMALL, root / "in" / "model.onnx", self.external)
        if self.old:
            _write(_OTHER, self.output(root), self.external)

    def output(self, root: Path) -> Path:
        if self.in_place:
            return root / "in" / "model.onnx"
        return root / ("out" if self.elsewhere else "in") / "result.onnx"

    def arguments(self, root: Path) -> list[str]:
        line: list[str] = [self.command, str(root / "in" / "model.onnx"), "-o", str(self.output(root)), "--quiet"]
        line += ["--in-place"] if self.in_place else []
        line += _NOT_TIMED if self.command == "quantize" else []
        line += ["--json", str(root / "out" / "report.json")] if self.reports else []
        line += ["--report", str(root / "out" / "report.html")] if self.reports and self.command == "quantize" else []
        return line

    def inputs(self, root: Path) -> dict[str, str]:
        """Hashes of the input's files; of its data alone where the model may be replaced."""
        names = ["model.onnx.weights"] if self.in_place else ["model.onnx", "model.onnx.weights"]
        return {name: digest(root / "in" / name) for name in names if (root / "in" / name).exists()}

    def reports_whole(self, root: Path) -> bool:
        """Whether each report is absent, or all of one."""
        return all(_is_whole(path) for path in sorted((root / "out").glob("report.*")))


CASES = (
    Case("fuse", "fuse", reports=True),
    Case("fuse, old output", "fuse", old=True),
    Case("fuse, external", "fuse", external=True),
    Case("fuse, external, old output", "fuse", external=True, old=True),
    Case("fuse, external, elsewhere, old", "fuse", external=True, elsewhere=True, old=True),
    Case("fuse --in-place", "fuse", in_place=True),
    Case("fuse --in-place, external", "fuse", external=True, in_place=True),
    Case("quantize", "quantize", reports=True),
    Case("quantize, external, old output", "quantize", external=True, old=True),
    Case("quantize --in-place, external", "quantize", external=True, in_place=True),
)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def computed(path: Path) -> list[Any] | None:
    """What a model gives, None where it does not load or run."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        onnx.checker.check_model(str(path))
        return list(ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, _FEEDS))
    except Exception:
        return None


def state(path: Path, old: list[Any] | None, new: list[Any]) -> State:
    """Which of the known models stands at `path`, by what it computes."""
    if not path.exists():
        return "absent" if old is None else "torn"
    found = computed(path)
    if found is None:
        return "torn"
    if _same(found, new):
        return "new"
    return "old" if old is not None and _same(found, old) else "torn"


def _same(a: list[Any], b: list[Any]) -> bool:
    return all(x.shape == y.shape and np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def _write(config: BertConfig, path: Path, external: bool) -> None:
    onnx.save(bert(config), path, save_as_external_data=external, location=f"{path.name}.weights", size_threshold=1024)


def _is_whole(report: Path) -> bool:
    if report.suffix == ".html":
        return report.read_text().rstrip().endswith("</html>")
    try:
        json.loads(report.read_text())
    except ValueError:
        return False
    return True


def litter(root: Path, known: Mapping[str, str]) -> list[str]:
    """What lies in the folders of a run and in that for temporary files, that is not of `known`.

    A side file may have a number in its name; of two, one is of no use.
    """
    paths = (path for path in root.rglob("*") if not path.is_dir() or path.parent.name == "tmp")
    found = Counter(re.sub(r"\.\d+\.data$", ".data", str(path.relative_to(root))) for path in paths)
    return sorted((found - Counter(known.keys())).elements())


def fresh(root: Path, make: Callable[[Path], None]) -> Path:
    """An empty `root` with what `make` puts there, and a folder for temporary files."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    (root / "tmp").mkdir()
    make(root)
    return root
