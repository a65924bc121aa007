"""Timing models side by side, and a model to do it with."""

from graphopt.bench.bert import BertConfig, bert
from graphopt.bench.feeds import feeds_for
from graphopt.bench.latency import Latency, Timing, time_models
from graphopt.bench.paired import Ratio, ratio_of_medians

__all__ = ["BertConfig", "Latency", "Ratio", "Timing", "bert", "feeds_for", "ratio_of_medians", "time_models"]
