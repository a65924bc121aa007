"""Timing models side by side, what else they cost, and a model to do it with."""

from graphopt.bench.agreement import cosine
from graphopt.bench.bert import BertConfig, bert
from graphopt.bench.disk import Size, size_of
from graphopt.bench.feeds import batch_of, feeds_for, refuse_others
from graphopt.bench.latency import WARMUP, Latency, Timing, cores, time_models
from graphopt.bench.loading import Timed
from graphopt.bench.observed import Footprint, Observation, OpTime, observe
from graphopt.bench.paired import FEWEST, Ratio, Spread, ratio_of_medians, spread
from graphopt.bench.shapes import ShapeSet, shape_sets

__all__ = [
    "FEWEST",
    "WARMUP",
    "BertConfig",
    "Footprint",
    "Latency",
    "Observation",
    "OpTime",
    "Ratio",
    "ShapeSet",
    "Size",
    "Spread",
    "Timed",
    "Timing",
    "batch_of",
    "bert",
    "cores",
    "cosine",
    "feeds_for",
    "observe",
    "ratio_of_medians",
    "refuse_others",
    "shape_sets",
    "size_of",
    "spread",
    "time_models",
]
