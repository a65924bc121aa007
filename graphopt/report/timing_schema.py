"""What models cost, as JSON, schema `graphopt/1`; seconds and bytes."""

from __future__ import annotations

from dataclasses import asdict

from graphopt.bench import Latency, Observation, Size, Timing
from graphopt.pipeline import Bench, Demo, Series
from graphopt.report.schema import SCHEMA, Report, fusion, ratio


def bench(found: Bench) -> Report:
    """`graphopt bench --json`; `models` and `shapes` are those of the first series, beside what all series have."""
    series = [_series(found, one) for one in found.series]
    return {"schema": SCHEMA, "command": "bench", **series[0], **_conditions(found.series[0].timing), "series": series}


def demo(found: Demo) -> Report:
    """`graphopt demo --json`"""
    timed = timing(found.timing) if found.timing is not None else None
    return fusion(found.fusion) | {"command": "demo", "latency": timed}


def timing(found: Timing) -> Report:
    """Models timed side by side."""
    return {"models": [_latency(one) for one in found.latencies], "shapes": found.shapes, **_conditions(found)}


def _conditions(found: Timing) -> Report:
    return {name: getattr(found, name) for name in ("runs", "warmup", "threads", "provider")}


def _series(found: Bench, series: Series) -> Report:
    models = [
        _latency(latency)
        | {"throughput": series.throughput(index), "cosine": series.cosines[index]}
        | _size(found.sizes[index])
        | _observation(series.observations[index], found.profiled)
        for index, latency in enumerate(series.timing.latencies)
    ]
    return {"shapes": series.timing.shapes, "batch": series.batch, "models": models}


def _latency(one: Latency) -> Report:
    wall = asdict(one.wall)
    return {
        "model": one.model,
        **{name: wall[name] for name in ("median", "mean", "std", "min", "max", "p90")},
        "median_interval": [one.wall.low, one.wall.high],
        **ratio(one.ratio),
        "cpu": {"median": one.cpu.median, "median_interval": [one.cpu.low, one.cpu.high], **ratio(one.cpu_ratio)},
    }


def _size(one: Size) -> Report:
    return {"size": {"disk": one.disk, "weights": one.weights, "files": list(one.files)}}


def _observation(seen: Observation, profiled: bool) -> Report:
    held = seen.footprint
    return {
        "memory": {"peak": held.peak, "model": held.model, "activations": held.activations, **asdict(held)},
        "nodes": dict(seen.nodes),
        "elsewhere": list(seen.elsewhere),
        "profile": [asdict(row) for row in seen.profile] if profiled else None,
    }
