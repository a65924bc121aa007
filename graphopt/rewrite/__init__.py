"""Rules and the engine that applies them: patterns, matcher, engine, trace, registry."""

from graphopt.ir import Value
from graphopt.rewrite.build import Builder, Declined
from graphopt.rewrite.engine import Engine, Limits
from graphopt.rewrite.facts import constant_of, number_of, numbers_of, see_through
from graphopt.rewrite.language import Attr, Attrs, Factor, Maybe, Number, Ops, const, like
from graphopt.rewrite.pattern import Expr, Reason, all_of
from graphopt.rewrite.plan import Grid, Integers, Plan, Recipe
from graphopt.rewrite.registry import RuleSet, built_in_rules, find_rules
from graphopt.rewrite.rule import CompiledRule, Context, Rule, kernel
from graphopt.rewrite.trace import Refusal, RuleCount, RuleFailure, Site, Trace

__all__ = [
    "Attr",
    "Attrs",
    "Builder",
    "CompiledRule",
    "Context",
    "Declined",
    "Engine",
    "Expr",
    "Factor",
    "Grid",
    "Integers",
    "Limits",
    "Maybe",
    "Number",
    "Ops",
    "Plan",
    "Reason",
    "Recipe",
    "Refusal",
    "Rule",
    "RuleCount",
    "RuleFailure",
    "RuleSet",
    "Site",
    "Trace",
    "Value",
    "all_of",
    "built_in_rules",
    "const",
    "constant_of",
    "find_rules",
    "kernel",
    "like",
    "number_of",
    "numbers_of",
    "see_through",
]
