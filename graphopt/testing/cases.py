"""Case files: reading them, and writing what came out back into them. Their form: `graphopt.testing`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from graphopt.errors import ModelError, near

_SECTION = re.compile(r"\[(case|out of|out|unchanged)(?: +(\w+))?\] *(.*)")
_SETTING = re.compile(r"(rule|target|opset|keep-opset|assume|plan|no-run|dim|feed)(?: +(\S+))?: *(.+)")
SCHEMES = {"static": 8, "dynamic": 8, "weights8": 8, "weights4": 4}
"""What a plan may begin with, and the bits of weights."""
WORDS = frozenset(("smooth", "bias", "output", "signed", "positive", "open", "exact"))
"""What a plan may say besides."""
_RANGE = re.compile(r"(\S+?)\.\.(\S+)")


@dataclass(frozen=True)
class Case:
    """One graph and what rules make of it.

    `text` begins at `line` of `path`; `expected` at `expected_line`, and is None where nothing may change, `reason`
    then being part of what the rule says. `borrowed` says that another case has the expected text.
    """

    path: Path
    name: str = ""
    line: int = 0
    text: str = ""
    expected: str | None = None
    expected_line: int = 0
    borrowed: bool = False
    reason: str = ""
    rules: tuple[str, ...] = ()
    target: str = ""
    opset: int = 20
    keep_opset: bool = False
    assume: frozenset[str] = frozenset()
    plan: str = ""
    dims: Mapping[str, int] = field(default_factory=dict)
    feeds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    no_run: str = ""

    def __str__(self) -> str:
        return f"{self.path.parent.name}/{self.path.stem}:{self.name}"


def parse_cases(path: Path) -> list[Case]:
    """The cases of a file. Raises: ModelError GO048 where the file is not of the form; graphs are not read yet."""
    return _Reader(path).cases()


def update_cases(path: Path, expected: Mapping[str, str]) -> None:
    """Writes the text after `[out]` of the cases named in `expected` anew; everything else stays as it is."""
    lines: list[str] = []
    case, skipping = "", False
    for line in path.read_text().splitlines():
        section = _SECTION.fullmatch(line)
        if section:
            if skipping:
                lines.append("")
            case = section[2] if section[1] == "case" else case
            skipping = section[1] == "out" and case in expected
        if section or not skipping:
            lines.append(line)
        if section and skipping:
            lines.extend(expected[case].splitlines())
    path.write_text("\n".join(lines).rstrip() + "\n")


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = path.read_text().splitlines()
        self.at = 0

    def error(self, message: str, line: int, hint: str = "") -> ModelError:
        return ModelError("GO048", message, f"{self.path}:{line}: {self.lines[line - 1]}", hint)

    def cases(self) -> list[Case]:
        common = self.settings(Case(self.path))
        found: dict[str, Case] = {}
        while self.at < len(self.lines):
            case = self.case(common, found)
            found[case.name] = case
        if not common.rules:
            raise self.error("no rule is named", 1, "begin the file with `rule: NAME`")
        return list(found.values())

    def case(self, common: Case, earlier: Mapping[str, Case]) -> Case:
        start = self.at + 1
        section = _SECTION.fullmatch(self.lines[self.at])
        if section is None or section[1] != "case" or not section[2]:
            raise self.error("expected [case NAME]", start)
        if section[2] in earlier:
            raise self.error(f"two cases are called '{section[2]}'", start)
        self.at += 1
        case = self.settings(replace(common, name=section[2]))
        case = replace(case, line=self.at + 1, text=self.body())
        ending = _SECTION.fullmatch(self.lines[self.at]) if self.at < len(self.lines) else None
        if ending is None or ending[1] == "case":
            raise self.error("neither [out] nor [unchanged] follows", start)
        self.at += 1
        if ending[1] == "unchanged":
            case = replace(case, reason=ending[3])
            if re.sub(r"#.*", "", self.body()).strip():
                raise self.error("nothing may follow [unchanged]", self.at)
            return case
        if ending[1] == "out":
            return replace(case, expected_line=self.at + 1, expected=self.body())
        if ending[2] not in earlier:
            raise self.error(f"no case '{ending[2]}' stands before this", self.at, near(ending[2], earlier))
        other = earlier[ending[2]]
        self.body()
        return replace(case, expected=other.expected, expected_line=other.expected_line, borrowed=True)

    def body(self) -> str:
        """The lines up to the next section."""
        start = self.at
        while self.at < len(self.lines) and not _SECTION.fullmatch(self.lines[self.at]):
            self.at += 1
        return "\n".join(self.lines[start : self.at])

    def settings(self, case: Case) -> Case:
        """`case` with the `key: value` lines that stand here."""
        while self.at < len(self.lines):
            line = self.lines[self.at].partition("#")[0].strip()
            setting = _SETTING.fullmatch(line)
            if line and setting is None:
                break
            self.at += 1
            if setting is not None:
                case = self.set(case, *setting.groups())
        return case

    def set(self, case: Case, key: str, name: str | None, value: str) -> Case:
        if (name is None) == (key in ("dim", "feed")):
            raise self.error("expected `dim NAME: SIZE`, `feed NAME: LOW..HIGH`, or `KEY: VALUE`", self.at)
        limits = _RANGE.fullmatch(value)
        try:
            match key:
                case "rule":
                    return replace(case, rules=tuple(rule.strip() for rule in value.split(",")))
                case "opset":
                    return replace(case, opset=int(value))
                case "dim":
                    return replace(case, dims={**case.dims, str(name): int(value)})
                case "feed" if limits:
                    return replace(case, feeds={**case.feeds, str(name): (float(limits[1]), float(limits[2]))})
                case "keep-opset" if value in ("yes", "no"):
                    return replace(case, keep_opset=value == "yes")
                case "assume":
                    return replace(case, assume=frozenset({value}))
                case "target":
                    return replace(case, target=value)
                case "plan" if value.split()[0] in SCHEMES and set(value.split()[1:]) <= WORDS:
                    return replace(case, plan=value)
                case "no-run":
                    return replace(case, no_run=value)
        except ValueError:
            pass
        raise self.error(f"'{value}' is not what '{key}' takes", self.at)
