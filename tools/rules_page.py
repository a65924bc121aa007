"""Writes docs/rules.md from the docstrings of the built-in rules: python tools/rules_page.py [--check]."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from graphopt.pipeline import parts
from graphopt.rewrite import CompiledRule, built_in_rules

PAGE = Path(__file__).resolve().parents[1] / "docs" / "rules.md"

_HEAD = """# The rules

What each rule finds and what it puts there, stage by stage; `graphopt rules NAME` prints one of them. This page is made
of the rules' docstrings by `python tools/rules_page.py`.
"""
_STAGES = {
    "clean": "What exporters leave behind; runs within every stage.",
    "recover": "One meaning, spelled in parts, becomes one operator.",
    "fuse": "Meanings next to each other.",
    "quantize": "Products in integers, as a plan decided ([quantization.md](quantization.md)).",
    "lower": "Meanings become the kernels that the target has ([targets.md](targets.md)).",
}


def text(rules: Iterable[CompiledRule]) -> str:
    """The page of all `rules`, which are sorted by stage."""
    lines = [_HEAD]
    for stage, group in groupby(rules, key=lambda rule: rule.stage):
        lines += [f"## {stage}\n", f"{_STAGES[stage]}\n"]
        for rule in group:
            lines += [*_entry(rule), ""]
    return "\n".join(lines).rstrip() + "\n"


def _entry(rule: CompiledRule) -> Iterator[str]:
    said = parts(rule)
    yield f"### {rule.name}\n"
    yield f"{_literal(said.pop('What'))}\n"
    for name, words in said.items():
        yield f"- **{name.lower()}**: {_literal(words)}"
    if rule.needs:
        yield f"- **needs**: a kernel {' or '.join(map(str, rule.needs))}"
    yield f"- **file**: `{_file(rule)}`"


def _file(rule: CompiledRule) -> str:
    return type(rule.rule).__module__.removeprefix("graphopt.").replace(".", "/") + ".py"


def _literal(words: str) -> str:
    """`words` with the signs that mean something in Markdown as they are, but for `code`."""
    pieces = re.split(r"(`[^`]*`)", words)
    return "".join(piece if piece[:1] == "`" else re.sub(r"([*_|<\[\]])", r"\\\1", piece) for piece in pieces)


def main() -> int:
    """Writes the page; with --check only says whether it is what the docstrings say."""
    found = text(built_in_rules())
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(found)
        return 0
    if PAGE.read_text() == found:
        return 0
    sys.stderr.write("docs/rules.md is not what the docstrings say: run python tools/rules_page.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
