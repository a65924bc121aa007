"""The whole of graphopt on one model that needs no download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.bench import BertConfig, Timing, bert, time_models
from graphopt.pipeline.fusion import fuse
from graphopt.pipeline.optimize import Progress
from graphopt.pipeline.result import Result


@dataclass(frozen=True)
class Demo:
    """What came of it: the fusion, and how fast the raw and the fused model are (None if none was written)."""

    fusion: Result
    timing: Timing | None


def demo(
    folder: Path,
    config: BertConfig,
    *,
    shape: tuple[int, int] = (1, 128),
    runs: int = 30,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Demo:
    """Writes a BERT to `folder` as an exporter would, fuses and verifies it, and times both at (batch, sequence)."""
    raw, fused = folder / "bert.onnx", folder / "bert.fused.onnx"
    if progress is not None:
        progress("build", 0, 1)
    raw.write_bytes(bert(config).SerializeToString())
    result = fuse(raw, fused, progress=progress)
    if result.output is None:
        return Demo(result, None)
    if progress is not None:
        progress("time", 0, 1)
    return Demo(result, time_models([raw, fused], _feeds(config, shape), runs=runs, threads=threads))


def _feeds(config: BertConfig, shape: tuple[int, int]) -> dict[str, Any]:
    rng = np.random.default_rng(config.seed)
    mask = np.ones(shape, np.int64)
    mask[:, shape[1] * 3 // 4 :] = 0
    return {
        "input_ids": rng.integers(config.vocabulary, size=shape),
        "attention_mask": mask,
        "token_type_ids": np.zeros(shape, np.int64),
    }
