"""Quantized models as graphopt and others write them: the variants that `quantized.py` puts side by side."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
"""Writes a quantized model: source, output, data to calibrate on. Raises whatever it fails with."""


def graphopt(*arguments: str, calibrated: bool = True) -> Build:
    """`graphopt quantize` with these arguments, on the split `calib`."""

    def build(source: Path, output: Path, data: Data) -> None:
        calib = ["--calib", data.path("calib")] if calibrated else []
        program = Path(sys.executable).with_name("graphopt")
        run(program, "quantize", source, "-o", output, "--quiet", "--allow-slower", *calib, *arguments)

    return build


def ort_dynamic(**options: Any) -> Build:
    """onnxruntime's dynamic quantization."""

    def build(source: Path, output: Path, data: Data) -> None:
        with prepared(source) as model:
            quantize_dynamic(model, output, **options)

    return build


def ort_static(constant: bool = False, **options: Any) -> Build:
    """onnxruntime's static quantization; `constant` leaves out products of two activations."""

    def build(source: Path, output: Path, data: Data) -> None:
        feeds = list(data.feeds("calib", 1))
        if options.get("calibrate_method", CalibrationMethod.MinMax) != CalibrationMethod.MinMax:
            feeds = padded(feeds)  # its histograms fail on feeds of several shapes
        with prepared(source) as model:
            left_out = products_of_activations(model) if constant else []
            quantize_static(model, output, Reader(feeds), nodes_to_exclude=left_out, **options)

    return build


def ort_blocks(bits: int, block: int) -> Build:
    """onnxruntime's quantizer of weights in blocks, round to nearest; the kernel multiplies bytes."""

    def build(source: Path, output: Path, data: Data) -> None:
        quantizer = MatMulNBitsQuantizer(onnx.load(source), bits=bits, block_size=block, accuracy_level=4)
        quantizer.process()
        quantizer.model.save_model_to_file(str(output))

    return build


def ort_fused_dynamic(source: Path, output: Path, data: Data) -> None:
    """What onnxruntime's own optimizer makes of a transformer, quantized per channel."""
    from onnxruntime.transformers import optimizer

    with tempfile.TemporaryDirectory() as name:
        fused = Path(name) / "fused.onnx"
        model = optimizer.optimize_model(str(source), model_type="bert", num_heads=0, hidden_size=0, opt_level=0)
        model.save_model_to_file(str(fused))
        # Types of values are not inferred through its fused operators.
        quantize_dynamic(fused, output, per_channel=True, extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})


def nncf(python: str) -> Build:
    """NNCF, in the interpreter that has it."""

    def build(source: Path, output: Path, data: Data) -> None:
        run(python, Path(__file__).with_name("quantized_nncf.py"), source, output, data.path("calib"))

    return build


def run(*command: str | Path) -> None:
    """Runs a program. Raises: RuntimeError with the end of what it says when it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {' '.join(done.stderr.split())[-400:]}")


@contextmanager
def prepared(source: Path) -> Iterator[Path]:
    """A copy of a model after onnxruntime's own preparation for quantization."""
    with tempfile.TemporaryDirectory() as name:
        target = Path(name) / "prepared.onnx"
        # Symbolic shape inference fails on some exports; the rest is what finds more products.
        quant_pre_process(source, target, skip_symbolic_shape=True)
        yield target


def products_of_activations(path: Path) -> list[str]:
    """The names of the MatMul nodes without a constant operand."""
    graph = onnx.load(path).graph
    constant = {tensor.name for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type == "MatMul" and not constant & set(node.input)]


class Reader(CalibrationDataReader):
    """Feeds, one after the other."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        """The next one, None behind the last."""
        return next(self._feeds, None)


def padded(feeds: Sequence[Feed]) -> list[Feed]:
    """Feeds filled up with zeros, which masks hide, to one shape."""
    largest = {name: np.max([feed[name].shape for feed in feeds], axis=0) for name in feeds[0]}
    return [{name: grown(array, largest[name]) for name, array in feed.items()} for feed in feeds]


def grown(array: np.ndarray[Any, Any], shape: Sequence[int]) -> np.ndarray[Any, Any]:
    """The array with zeros behind it."""
    return np.pad(array, [(0, int(size) - have) for size, have in zip(shape, array.shape, strict=True)])


U8S8: Mapping[str, Any] = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
PRODUCTS: Mapping[str, Any] = {"op_types_to_quantize": ["MatMul", "Gemm", "Conv"]}
INPUTS_ONLY: Mapping[str, Any] = {**PRODUCTS, "extra_options": {"OpTypesToExcludeOutputQuantization": ["MatMul"]}}

BEST_STATIC: dict[str, Build] = {
    "all operators": ort_static(**U8S8),
    "products": ort_static(constant=True, **PRODUCTS, **U8S8),
    "inputs only": ort_static(constant=True, **INPUTS_ONLY, **U8S8),
    "inputs only, percentile": ort_static(
        constant=True, **INPUTS_ONLY, **U8S8, calibrate_method=CalibrationMethod.Percentile
    ),
}
"""Settings of onnxruntime's static quantization of which the best on `search` is shown: uint8 × int8 per channel, of
all operators, of products with constant weights, or of what these read."""

OURS: dict[str, Build] = {
    "graphopt auto": graphopt("--mode", "auto"),
    "graphopt static": graphopt("--mode", "static"),
    "graphopt dynamic": graphopt("--mode", "dynamic", calibrated=False),
    "graphopt weight-only": graphopt("--mode", "weight-only"),
}
ORT: dict[str, Build] = {
    "onnxruntime dynamic": ort_dynamic(),
    "onnxruntime dynamic, per channel": ort_dynamic(per_channel=True, extra_options={"MatMulConstBOnly": True}),
    "onnxruntime static": ort_static(),
    "onnxruntime static U8S8": ort_static(activation_type=QuantType.QUInt8),
}
FUSED: dict[str, Build] = {"onnxruntime fused, dynamic per channel": ort_fused_dynamic}


def blocks(block: int) -> dict[str, Build]:
    """Weights of 4 bits in blocks: ours and onnxruntime's."""
    ours = ("--mode", "weight-only", "--weight-bits", "4", "--block", str(block))
    return {f"graphopt 4 bit / {block}": graphopt(*ours), f"onnxruntime 4 bit / {block}": ort_blocks(4, block)}
