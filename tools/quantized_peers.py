"""Quantized models as graphopt and others write them: the variants that `quantized.py` puts side by side."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process

Feed = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Data:
    """Where the feeds of one model lie: `folder/<split>`, a folder of `.npz`, or `folder/<split>.npz`."""

    folder: Path

    def path(self, split: str) -> Path:
        """The folder or file of a split, as `graphopt quantize --calib` takes it."""
        folder = self.folder / split
        return folder if folder.is_dir() else folder.with_suffix(".npz")

    def feeds(self, split: str, batch: int = 50) -> Iterator[Feed]:
        """The feeds of a split; samples along a first axis in batches."""
        path = self.path(split)
        if path.is_dir():
            yield from (dict(np.load(part)) for part in sorted(path.glob("*.npz")))
            return
        arrays = dict(np.load(path))
        for start in range(0, len(next(iter(arrays.values()))), batch):
            yield {name: array[start : start + batch] for name, array in arrays.items()}

    def labels(self, split: str) -> np.ndarray[Any, Any]:
        """What the samples of a split show."""
        return np.load(self.folder / f"{split}.labels.npy")


Build = Callable[[Path, Path, Data], None]
"""Writes the quantized model: source, output, data to calibrate on."""


def graphopt(source: Path, output: Path, data: Data, *arguments: str) -> None:
    """Through the command line, on the split `calib`. Raises: RuntimeError with what it says when it fails."""
    command = [Path(sys.executable).with_name("graphopt"), "quantize", source, "-o", output, "--quiet", *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {' '.join(done.stderr.split())[:300]}")


def calibrated(source: Path, output: Path, data: Data, *arguments: str) -> None:
    """The same with data."""
    graphopt(source, output, data, "--calib", str(data.path("calib")), *arguments)


def ort_dynamic(source: Path, output: Path, data: Data, **options: Any) -> None:
    with prepared(source) as model:
        quantize_dynamic(model, output, **options)


def ort_static(source: Path, output: Path, data: Data, prepare: bool = True, **options: Any) -> None:
    """`prepare` runs onnxruntime's own preparation first; histograms need feeds of one shape."""
    ragged = options.get("calibrate_method", CalibrationMethod.MinMax) == CalibrationMethod.MinMax
    feeds = list(data.feeds("calib", 1))
    if not prepare:
        quantize_static(source, output, Reader(feeds if ragged else padded(feeds)), **options)
        return
    with prepared(source) as model:
        quantize_static(model, output, Reader(feeds if ragged else padded(feeds)), **options)


def ort_blocks(source: Path, output: Path, data: Data, bits: int, block: int, level: int | None = 4) -> None:
    """MatMulNBits by onnxruntime's quantizer, round to nearest."""
    quantizer = MatMulNBitsQuantizer(onnx.load(source), bits=bits, block_size=block, accuracy_level=level)
    quantizer.process()
    quantizer.model.save_model_to_file(str(output))


def ort_fused_dynamic(source: Path, output: Path, data: Data) -> None:
    """What onnxruntime's own optimizer for transformers makes, quantized per channel."""
    from onnxruntime.transformers import optimizer

    with tempfile.TemporaryDirectory() as name:
        fused = Path(name) / "fused.onnx"
        model = optimizer.optimize_model(str(source), model_type="bert", num_heads=0, hidden_size=0, opt_level=0)
        model.save_model_to_file(str(fused))
        quantize_dynamic(fused, output, per_channel=True, op_types_to_quantize=["MatMul", "Attention"])


def nncf(source: Path, output: Path, data: Data, *, python: str) -> None:
    """In another interpreter. Raises: RuntimeError with what it says when it fails."""
    script = Path(__file__).with_name("quantized_nncf.py")
    command = [python, str(script), str(source), str(output), str(data.path("calib"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {' '.join(done.stderr.split())[-300:]}")


class prepared:  # noqa: N801
    """A copy of a model with onnxruntime's preparation for quantization, in a folder that goes away."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> Path:
        target = Path(self._folder.name) / "prepared.onnx"
        # Symbolic shape inference fails on some of the exports, and nothing here needs it.
        quant_pre_process(self._source, target, skip_symbolic_shape=True)
        return target

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


class Reader(CalibrationDataReader):
    """Feeds, one after the other."""

    def __init__(self, feeds: list[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        """The next one, None behind the last."""
        return next(self._feeds, None)


def padded(feeds: list[Feed]) -> list[Feed]:
    """Feeds filled up with zeros, which masks hide, to one shape."""
    largest = {name: np.max([feed[name].shape for feed in feeds], axis=0) for name in feeds[0]}
    return [
        {
            name: np.pad(array, [(0, int(size) - have) for size, have in zip(largest[name], array.shape, strict=True)])
            for name, array in feed.items()
        }
        for feed in feeds
    ]


UNSIGNED: Mapping[str, Any] = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
CONSTANT: Mapping[str, Any] = {"MatMulConstBOnly": True}
PRODUCTS: Mapping[str, Any] = {
    **UNSIGNED,
    "per_channel": True,
    "op_types_to_quantize": ["MatMul", "Gemm", "Conv"],
    "extra_options": {**CONSTANT, "OpTypesToExcludeOutputQuantization": ["MatMul"]},
}
HISTOGRAM: Mapping[str, Any] = {"calibrate_method": CalibrationMethod.Percentile}

MODES: dict[str, Build] = {
    "graphopt auto": partial(lambda *a, **k: calibrated(*a, "--mode", "auto", **k)),
    "graphopt static": partial(lambda *a, **k: calibrated(*a, "--mode", "static", **k)),
    "graphopt dynamic": partial(lambda *a, **k: graphopt(*a, "--mode", "dynamic", **k)),
    "graphopt weight-only": partial(lambda *a, **k: calibrated(*a, "--mode", "weight-only", **k)),
}
ORT: dict[str, Build] = {
    "onnxruntime dynamic, defaults": partial(ort_dynamic),
    "onnxruntime dynamic, per channel": partial(ort_dynamic, per_channel=True, extra_options=dict(CONSTANT)),
    "onnxruntime static, defaults (S8S8)": partial(ort_static, prepare=False),
    "onnxruntime static, U8S8": partial(ort_static, prepare=False, **UNSIGNED),
}
