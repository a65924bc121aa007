"""Timing models side by side, and the model that the demo times."""

from graphopt.bench.latency import Latency, time_models
from graphopt.bench.paired import Ratio, ratio_of_medians

__all__ = ["Latency", "Ratio", "ratio_of_medians", "time_models"]
