"""`check_rule`: instances of a rule's pattern in all their spellings, and mutants of them, made with Hypothesis."""

from __future__ import annotations

from graphopt.errors import UsageError

try:
    import hypothesis as hypothesis
except ImportError as error:
    hint = 'pip install "graphopt[testing]"'
    raise UsageError("GO067", "check_rule needs hypothesis, which is not installed", "", hint) from error

from graphopt.testing.check.check import check_rule
from graphopt.testing.check.report import Report

__all__ = ["Report", "check_rule"]
