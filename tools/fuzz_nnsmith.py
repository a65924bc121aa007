"""Random models of NNSmith as exports with torch's inputs and outputs beside them, in the form of tools/zoo.py.

NNSmith is not among this project's dependencies: it goes into an environment of its own, with torch.

    python tools/fuzz_nnsmith.py --count 200 --out random
    python tools/replay.py random                       # fuses them, and compares with torch
    python tools/fuzz.py --exports random --pool seeds  # mutates them
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from nnsmith.graph_gen import model_gen
from nnsmith.materialize import Model
from nnsmith.narrow_spec import auto_opset


def written(seed: int, size: int, operators: Any, kind: Any, folder: Path) -> bool:
    """Writes the model of one seed; False where torch cannot export it."""
    generator = model_gen(opset=operators, method="symbolic", seed=seed, max_nodes=size)
    made = kind.from_gir(generator.make_concrete())
    made.refine_weights()
    module = made.torch_model.eval()
    torch.manual_seed(seed)
    inputs = {name: _drawn(like) for name, like in made.input_like.items()}
    path = folder / f"nnsmith-{seed}.onnx"
    try:
        with torch.no_grad():
            outputs = module(*inputs.values())
            names = list(made.output_like)
            torch.onnx.export(
                module, tuple(inputs.values()), path, input_names=list(inputs), output_names=names, dynamo=False
            )
    except Exception as error:
        click.echo(f"{seed}: {str(error).splitlines()[0] if str(error) else type(error).__name__}", err=True)
        path.unlink(missing_ok=True)
        return False
    outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
    arrays = {f"0/in/{name}": value.numpy() for name, value in inputs.items()}
    arrays |= {f"0/out/{name}": value.detach().numpy() for name, value in zip(names, outputs, strict=True)}
    np.savez(path.with_suffix(".npz"), **arrays)
    return True


def _drawn(like: Any) -> torch.Tensor:
    dtype = like.dtype.torch()
    if dtype.is_floating_point:
        return torch.randn(like.shape, dtype=dtype)
    return torch.randint(0, 2 if dtype == torch.bool else 5, like.shape).to(dtype)


@click.command(help=__doc__)
@click.option("--count", default=100)
@click.option("--begin", default=0, help="The first seed.")
@click.option("--size", default=10, help="Nodes, about.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(count: int, begin: int, size: int, out: Path) -> None:
    warnings.simplefilter("ignore")
    out.mkdir(parents=True, exist_ok=True)
    kind = Model.init("torch", "cpu")
    operators = auto_opset(kind)
    good = sum(written(seed, size, operators, kind, out) for seed in range(begin, begin + count))
    click.echo(f"{good} of {count} models")


if __name__ == "__main__":
    main()
