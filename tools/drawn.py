"""Architectures that no rule was written for: drawn with a seed, listed, then exported.

    python tools/drawn.py draw --seed 1 tools/drawn.json        # once, and committed before anything is exported
    python tools/drawn.py export tools/drawn.json --count 25 --out drawn
    python tools/replay.py drawn

The list is the whole order of the draw over transformers' model types, without those that the zoo has or that rules
were tried on. `export` takes them in this order until `--count` of them export with at least one exporter and attention
implementation; what does not export is printed with the reason and replaced by the next.
"""

import itertools
import json
import logging
import multiprocessing
import os
import random
import sys
import warnings
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

import click
import torch
from drawn_models import entry
from rich.console import Console
from rich.table import Table
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES
from zoo_export import EXPORTERS, Variant, build
from zoo_export import export as export_variant
from zoo_models import ZOO

FORK = multiprocessing.get_context("fork")

SEEN = (
    *("cohere", "glm", "gpt2", "gpt_bigcode", "gpt_neo", "gptj", "llama4_text", "mt5", "umt5", "olmo", "persimmon"),
    *("qwen2_vl", "qwen2_vl_text", "roformer", "stablelm", "timm_backbone", "timm_wrapper", "gemma", "camembert"),
)
"""Tried while rules were written, though not in the zoo; the timm ones are no architecture of their own."""

TIMEOUT = 90.0
"""Seconds for one export."""


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--seed", type=int, required=True)
@click.option("--without", type=click.Path(exists=True, path_type=Path), multiple=True, help="An earlier list.")
@click.option("--used", type=int, default=0, help="How many of each earlier list were looked at.")
def draw(path: Path, seed: int, without: tuple[Path, ...], used: int) -> None:
    """Write the order of a draw to PATH."""
    earlier = {kind for old in without for kind in json.loads(old.read_text())["order"][:used]}
    zoo = {name.rsplit("-", 1)[0] for name in ZOO}
    kinds = sorted(MODEL_MAPPING_NAMES.keys() - zoo - set(SEEN) - earlier)
    random.Random(seed).shuffle(kinds)
    drawn = {"seed": seed, "transformers": version("transformers"), "order": kinds}
    path.write_text(json.dumps(drawn, indent=1) + "\n")


@main.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--count", type=int, default=25)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
def export(path: Path, count: int, out: Path) -> None:
    """Export the first COUNT architectures of the list PATH that export at all."""
    import torch.onnx._internal.exporter._core  # noqa: F401  # once, not in each child

    out.mkdir(parents=True, exist_ok=True)
    table = Table("architecture", "exports", "what did not export")
    done = 0
    for kind in json.loads(path.read_text())["order"]:
        if done == count:
            break
        made, failed = export_all(kind, out)
        done += bool(made)
        table.add_row(kind, " ".join(made) or "replaced by the next", "\n".join(f"{k}: {v}" for k, v in failed.items()))
        print(kind, *made, file=sys.stderr, flush=True)
    Console(width=160).print(table)


def export_all(kind: str, out: Path) -> tuple[list[str], dict[str, str]]:
    """Exports of one architecture, each in a process of its own: (what was written, why others were not)."""
    made, failed = [], {}
    for exporter, attention in itertools.product(("ts", "dynamo"), ("eager", "sdpa")):
        name = f"{exporter}.{attention}"
        reason = in_child(kind, exporter, attention, out)
        if reason is None:
            made.append(name)
        else:
            failed[name] = reason
        if reason and reason.startswith("torch"):
            break
    return made, failed


def in_child(kind: str, exporter: str, attention: str, out: Path) -> str | None:
    """One export in a fork of this process, which has its imports done: why there is none, or None."""
    receiver, sender = FORK.Pipe(duplex=False)
    child = FORK.Process(target=write, args=(kind, exporter, attention, out, sender))
    child.start()
    sender.close()
    reason: str | None = f"not within {TIMEOUT:g} s"
    if receiver.poll(TIMEOUT):
        try:
            reason = receiver.recv()
        except EOFError:
            reason = "the process ended"
    child.kill()
    child.join()
    return reason


def write(kind: str, exporter: str, attention: str, out: Path, sender: Connection) -> None:
    """Exports, and sends None or why not; what torch itself does not run begins with "torch"."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    variant = Variant(kind, exporter, attention, EXPORTERS[exporter])
    try:
        ZOO[kind] = entry(kind)
        model = build(variant)
        with torch.no_grad():
            model(**next(iter(variant.cases()))[1])
    except Exception as error:
        sender.send(f"torch: {told(error)}" if attention == "eager" else told(error))
        return
    try:
        export_variant(variant, out)
        sender.send(None)
    except Exception as error:
        sender.send(told(error))


def told(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:150]


if __name__ == "__main__":
    main()
