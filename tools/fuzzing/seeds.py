"""Valid models to begin with: the operators of onnx, the cases of every rule, pairs, exotic models, small exports."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
from onnx.backend.test.case.node import collect_testcases

from graphopt.errors import GraphoptError
from graphopt.ir import IR_DOMAIN, model_to_proto
from graphopt.ir.infer import infer
from graphopt.ir.text import parse
from graphopt.testing.cases import parse_cases

_ROOT = Path(__file__).parents[2]
_NEWEST_IR = 13
"""What onnxruntime loads."""
_LARGEST = 1_500_000
"""Bytes. A mutation of a larger model takes too long to try."""


@dataclass(frozen=True)
class Seed:
    """A model with the files of its weights, and inputs that it runs on, where they are known."""

    name: str
    model: bytes
    feeds: Mapping[str, Any] | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


class Pool:
    """The seeds in a folder, by name in groups (`backend`, `rules`, `pairs`, `exotic`, `exports`, ...)."""

    def __init__(self, folder: Path) -> None:
        self.groups = {
            group.name: sorted(path for path in group.iterdir() if path.suffix == ".onnx")
            for group in sorted(folder.iterdir())
            if group.is_dir()
        }

    def draw(self, rng: Random, group: str = "") -> Seed:
        """One of `group`, else of any group, each with the same chance."""
        path = rng.choice(self.groups[group or rng.choice(sorted(self.groups))])
        feeds = None
        if (beside := path.with_suffix(".npz")).exists():
            with np.load(beside) as stored:
                feeds = dict(stored)
        data = path.with_suffix(".files")
        files = {str(file.relative_to(data)): file.read_bytes() for file in sorted(data.rglob("*")) if file.is_file()}
        return Seed(f"{path.parent.name}/{path.stem}", path.read_bytes(), feeds, files)


GROUPS = ("rules", "pairs", "exotic", "backend", "exports")


def write_pool(folder: Path, exports: Iterable[Path] = (), groups: Iterable[str] = GROUPS) -> Pool:
    """The pool in `folder`, which is made where it is not there; `exports` are folders of models."""
    if not folder.exists():
        makers = (_rules(), _pairs(), _exotic(), _backend(), _exports(exports))
        for group, seeds in zip(GROUPS, makers, strict=True):
            if group in groups:
                _write(folder / group, seeds)
    return Pool(folder)


def _write(folder: Path, seeds: Iterable[Seed]) -> None:
    for seed in seeds:
        if len(seed.model) <= _LARGEST:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{seed.name}.onnx").write_bytes(seed.model)
            if seed.feeds and all(isinstance(x, np.ndarray) and x.dtype.kind in "biuf" for x in seed.feeds.values()):
                np.savez(folder / f"{seed.name}.npz", **seed.feeds)
            for location, data in seed.files.items():
                path = folder / f"{seed.name}.files" / location
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)


def _backend() -> Iterator[Seed]:
    with warnings.catch_warnings():
        # onnx's own makers of expected values divide by zero on purpose.
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    for case in found:
        case.model.ir_version = min(case.model.ir_version, _NEWEST_IR)
        names = [value.name for value in case.model.graph.input]
        feeds = dict(zip(names, case.data_sets[0][0], strict=False)) if case.data_sets else None
        yield Seed(case.name, case.model.SerializeToString(), feeds)


def _rules() -> Iterator[Seed]:
    """The graphs of the case files of all rules, as far as they can be written."""
    for path in sorted((_ROOT / "tests" / "rules").glob("*/*.txt")):
        for case in parse_cases(path):
            text = case.text if case.text.lstrip().startswith("opset") else f"opset {case.opset}\n{case.text}"
            try:
                model = parse(text)
            except GraphoptError:
                continue
            infer(model)
            if not any(node.domain == IR_DOMAIN for scope in model.scopes() for node in scope.ops()):
                yield Seed(f"{path.parent.name}-{path.stem}-{case.name}", model_to_proto(model).SerializeToString())


def _pairs() -> Iterator[Seed]:
    sys.path.insert(0, str(_ROOT / "tests"))
    from pairs import PAIRS

    for number, pair in enumerate(PAIRS):
        feeds = pair.feeds(np.random.default_rng(0)) if pair.feeds is not None else None
        yield Seed(f"{number:03}", pair.reference().SerializeToString(), feeds)


def _exotic() -> Iterator[Seed]:
    """The exotic valid models of the tests."""
    sys.path.insert(0, str(_ROOT / "tests"))
    from corpora.exotic import EXOTICS

    for exotic in EXOTICS:
        made = exotic.make()
        name = exotic.name.replace("/", "-")
        yield Seed(name, made.proto.SerializeToString(), made.feeds, made.files)


def _exports(folders: Iterable[Path]) -> Iterator[Seed]:
    """Models of folders that tools/zoo.py writes, weights inside, with the first of their inputs."""
    for path in sorted(path for folder in folders for path in folder.glob("*.onnx")):
        yield Seed(path.stem, _whole(path), _inputs(path.with_suffix(".npz")))


def _whole(path: Path) -> bytes:
    """A model with its weights inside."""
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            with (path.parent / entries["location"]).open("rb") as file:
                file.seek(int(entries.get("offset", 0)))
                tensor.raw_data = file.read(int(entries["length"]))
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    return proto.SerializeToString()


def _inputs(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    with np.load(path) as stored:
        keys = sorted(key for key in stored.files if key.split("/")[1:2] == ["in"])
        first = keys[0].split("/")[0] if keys else ""
        return {key.split("/", 2)[2]: stored[key] for key in keys if key.split("/")[0] == first}
