"""Export models to ONNX by architecture, exporter, attention implementation, opset and precision.

A name reads ``<architecture>-<size>.<exporter>.<attention>.<opset>``: ``bert-tiny.dynamo.sdpa.20``, with ``.f16`` at
its end for a model in half precision. One export is

- ``<name>.onnx``, with ``<name>.onnx.data`` beside it where the exporter keeps weights outside the model,
- ``<name>.npz``, torch's own inputs and outputs: arrays ``<case>/in/<input>`` and ``<case>/out/<output>`` where a case
  is a shape and a kind of mask, such as ``3x37.left``; the outputs are float32 whatever the model is; and
- ``<name>.json``: ``ideal``, how often each meaning ran in torch; ``alone``, which of them a compiler leaves as they
  are, and why; for half models ``floor``, how far torch's own half model is from the outputs (a share of their rms).

There is no case where torch's outputs are no numbers. A half model need not agree with torch on a fully masked row:
its lowest number is another.

Weights are seeded by architecture and size, so all exports of one model carry the same numbers, and drawn so that each
one shows in the outputs.
"""

import fnmatch
import itertools
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import click
from zoo_export import EXPORTERS, Variant, export
from zoo_models import GROUPS, OPSETS, WIDE, ZOO


def variants(opset: int | None = None) -> Iterator[Variant]:
    """Every export of the table, at the exporters' own opsets or at ``opset``; those of ``WIDE`` at more than one."""
    for model, entry in ZOO.items():
        for exporter, attention in itertools.product(EXPORTERS, entry.attentions):
            yield Variant(model, exporter, attention, opset or EXPORTERS[exporter])
            if model in WIDE:
                yield Variant(model, exporter, attention, opset or EXPORTERS[exporter], half=True)
            if model in WIDE and not opset:
                yield Variant(model, exporter, attention, OPSETS[exporter])


def select(names: tuple[str, ...], opset: int | None) -> list[Variant]:
    """What the names, leading parts of names, globs or groups pick; ``click.UsageError`` where one picks nothing."""
    chosen: dict[Variant, None] = {}
    for name in names:
        globs = (name, f"{name}-*", f"{name}.*")
        group = GROUPS.get(name, {})
        hits = [v for v in variants(opset) if v.model in group or any(fnmatch.fnmatchcase(str(v), g) for g in globs)]
        if not hits:
            raise click.UsageError(f"no export is called '{name}'; 'list' prints them")
        chosen |= dict.fromkeys(hits)
    return list(chosen)


@click.group()
def main() -> None:
    """Exports of real models, for tests and benchmarks."""


@main.command("list")
def list_variants() -> None:
    """Print the name of every export."""
    for variant in variants():
        click.echo(str(variant))


@main.command("export")
@click.argument("names", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every export of every small model.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the exports.")
@click.option("--opset", type=int, help="Write this opset instead of the exporters' own.")
def export_variants(names: tuple[str, ...], every: bool, out: Path, opset: int | None) -> None:
    """Export what NAMES pick: groups, full names, leading parts (bert, bert-tiny.ts) or globs. What exists is kept.

    Exits with 1 where an export fails; the others are written all the same.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    chosen = select((*names, *(["*-tiny.*"] if every else [])), opset)
    failed, start = 0, time.monotonic()
    for number, variant in enumerate(chosen, 1):
        before = time.monotonic()
        reason = attempt(variant, out)
        failed += reason is not None
        click.echo(f"[{number}/{len(chosen)}] {time.monotonic() - before:.1f} s {variant} {reason or ''}")
    click.echo(f"{len(chosen) - failed} exports, {failed} failed, {time.monotonic() - start:.0f} s")
    sys.exit(failed > 0)


def attempt(variant: Variant, out: Path) -> str | None:
    """Export; why it failed, where it did. What the exporters print is not shown."""
    try:
        with redirect_stdout(StringIO()):
            export(variant, out)
    except Exception as error:
        cause = error.__cause__ or error
        return f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"
    return None


if __name__ == "__main__":
    main()
