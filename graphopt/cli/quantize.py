"""`graphopt quantize`: INT8, weight-only and float16; what it costs; write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from graphopt.cli.beside import beside
from graphopt.cli.options import all_of, deciding, only, running, screen, writing
from graphopt.cli.screen import Screen
from graphopt.cli.signals import stoppable
from graphopt.cli.types import CHOOSE, SMOOTH, Number

_what = all_of(
    click.option(
        "--mode",
        type=click.Choice(["auto", "dynamic", "static", "weight-only", "float16"]),
        default="auto",
        show_default=True,
        help="auto: with --calib the best of all for each group of products, without it dynamic.",
    ),
    click.option("--cpu", type=click.Choice(["x86-vnni", "x86", "arm"]), help="What will run it; default: this one."),
    click.option(
        "--scheme",
        "schemes",
        type=CHOOSE,
        multiple=True,
        help="static, dynamic, weights8, weights4 or float for the products that match; repeatable.",
    ),
    click.option("--exclude", metavar="PATTERN", multiple=True, help="Leave these products in float; repeatable."),
    click.option(
        "--weight-bits", type=click.Choice(["8", "4"]), default="8", show_default=True, help="Bits in weight-only."
    ),
    click.option(
        "--block",
        type=click.Choice(["16", "32", "64", "128", "256"]),
        help="How many weights share a scale in weight-only schemes; default: 32, in mode auto 128.",
    ),
    click.option(
        "--smooth",
        type=SMOOTH,
        default="auto",
        show_default=True,
        help="How far outliers of activations move into weights: searched for, not at all, or an exponent.",
    ),
    click.option(
        "--observer",
        metavar="NAME",
        help="min-max, percentile-P, mse or entropy; default: chosen by the model's output.",
    ),
    click.option("--embed", is_flag=True, help="Quantize embedding tables as well."),
)
_data = all_of(
    click.option(
        "--calib",
        metavar="DATA",
        help="FILE.npz (samples along the first axis), a folder of .npz (each one feed), or FILE.py with batches().",
    ),
    click.option("--calib-batch", type=click.IntRange(min=1), help="Samples of FILE.npz in one batch; default: 1."),
    click.option("--skip-bad", is_flag=True, help="Leave bad batches out, and name them, rather than to stop."),
    click.option(
        "--cache/--no-cache", default=True, show_default=True, help="Keep what calibration found for another run."
    ),
)
_conditions = all_of(
    click.option(
        "--metric",
        metavar="NAME",
        default="cosine",
        show_default=True,
        help="cosine, sqnr, top1, or FILE.py:function of the outputs of both models.",
    ),
    click.option(
        "--max-drop",
        type=Number(min=0),
        help="What the metric may lose at most (with sqnr: noise divided by signal).",
    ),
    click.option("--best-effort", is_flag=True, help="Write the best model found even if it loses more."),
    click.option(
        "--require-integer",
        type=Number(0, 1),
        metavar="SHARE",
        help="Write only if this share of the products with constant weights runs on integer kernels.",
    ),
    click.option("--allow-slower", is_flag=True, help="Write even if it is slower than the original."),
)


@click.command(short_help="INT8, weight-only, float16; say what it costs; write.")
@click.argument("model")
@click.option("-o", "--output", metavar="PATH", help="Where to write; default: MODEL's stem with .int8.onnx.")
@_what
@_data
@_conditions
@click.option("--report", metavar="FILE.html", help="Write a page with every product, its kernel and its cost.")
@only
@deciding
@writing
@running
@screen
def quantize(
    screen: Screen,
    model: str,
    output: str | None,
    report: str | None,
    schemes: tuple[tuple[str, Any], ...],
    weight_bits: str,
    block: str | None,
    dims: tuple[tuple[str, int], ...],
    **options: Any,
) -> int:
    """Quantize MODEL for the processor that will run it, say what that costs in accuracy, prove which kernels run, and
    write it."""
    from graphopt import pipeline
    from graphopt.report import html, schema
    from graphopt.report.quantization import quantization

    suffix = ".float16.onnx" if options["mode"] == "float16" else ".int8.onnx"
    target = Path(output) if output is not None else beside(model, suffix)
    screen.refuse_report_at(target)
    screen.refuse_page_at(report, target)
    page = Path(report) if report is not None else None
    with stoppable(target, page):
        with screen.progress() as progress:
            result = pipeline.quantize(
                model,
                target,
                schemes=dict(schemes),
                weight_bits=4 if weight_bits == "4" else 8,
                block=int(block) if block is not None else None,
                dims=dict(dims),
                progress=progress,
                **options,
            )
        found = schema.quantization(result)
        if report is not None:
            screen.refuse_page_at(report, target)
            html.write(found, report)
        screen.show(found, lambda: quantization(result, verbose=screen.verbose))
    return screen.fail(*result.errors)
