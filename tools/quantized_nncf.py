"""Post-training quantization by NNCF, run by its own interpreter: it wants older packages than graphopt.

    python tools/quantized_nncf.py SOURCE OUTPUT CALIBRATION

`CALIBRATION` is a folder of `.npz`, one feed in each, or one `.npz` with samples along the first axis. A model with
normalizations is told to be a transformer: SmoothQuant, and no grids inside of attention.
"""

import sys
from pathlib import Path

import nncf
import numpy as np
import onnx


def main(source: Path, output: Path, calibration: Path) -> None:
    """Writes the quantized model."""
    model = onnx.load(source)
    ops = {node.op_type for node in model.graph.node}
    kind = nncf.ModelType.TRANSFORMER if "Softmax" in ops else None
    taken = feeds(calibration)
    quantized = nncf.quantize(model, nncf.Dataset(taken), subset_size=len(taken), model_type=kind)
    onnx.save(quantized, output)


def feeds(path: Path) -> list[dict[str, np.ndarray]]:
    """One feed for each file of a folder, or for each sample of a file."""
    if path.is_dir():
        return [dict(np.load(part)) for part in sorted(path.glob("*.npz"))]
    arrays = dict(np.load(path))
    return [{name: array[i : i + 1] for name, array in arrays.items()} for i in range(len(next(iter(arrays.values()))))]


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
