"""What a site may become, from the cheapest to floats, and why not the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from graphopt.quantize.dialect import Dialect
from graphopt.quantize.search import Group, Level
from graphopt.quantize.sites import Site

Mode = Literal["auto", "dynamic", "static", "weight-only"]

_CALIBRATED = ("Conv", "ConvTranspose")
_NESTED = "it stands in a subgraph, which no calibration sees"
_UNSEEN = "static was asked for, which takes calibration data"
_FORMS: dict[str, tuple[Level, ...]] = {
    "Gather": ("weights8",),
    "LSTM": ("dynamic",),
    **dict.fromkeys(_CALIBRATED, ("static",)),
}
"""The levels, besides floats, of the operators that have not all of them."""


@dataclass(frozen=True)
class Choice:
    """The levels that a site may have, the cheapest first, and why it has not what the mode asks for."""

    levels: tuple[Level, ...]
    reason: str = ""


def choice(site: Site, mode: Mode, bits: int, refused: Callable[[str], str | None]) -> Choice:
    """What `site` may become.

    `refused` says why the activation of a name cannot have a grid; "" where it can, None where nobody looked at it.
    """
    if site.refusal:
        return Choice(("float",), site.refusal)
    weights: Level = "weights4" if bits == 4 else "weights8"
    if site.op == "Gather":
        return Choice(("weights8", "float"))
    if site.op == "LSTM":
        return (
            Choice(("dynamic", "float")) if mode != "weight-only" else Choice(("float",), "an LSTM has no such kernel")
        )
    found = _refused(site, refused)
    if site.op in _CALIBRATED:
        if mode in ("static", "auto") and found == "":
            return Choice(("static", "float"))
        reason = _NESTED if site.nested else "convolutions need calibration, by --mode static or auto with --calib"
        return Choice(("float",), found or reason)
    match mode:
        case "weight-only":
            return Choice((weights, "float"))
        case "dynamic":
            # A range that no grid serves spoils one found at run time as well.
            return Choice(("float",), found) if found else Choice(("dynamic", "float"))
    told = _NESTED if site.nested else found
    if found == "":
        return Choice(("static", "float") if mode == "static" else ("static", weights, "float"))
    if site.nested or found is None:
        return Choice(("dynamic", "float") if mode == "static" else ("dynamic", weights, "float"), told or "")
    return Choice(("float",) if mode == "static" else (weights, "float"), found)


def _refused(site: Site, refused: Callable[[str], str | None]) -> str | None:
    """Why what `site` reads, or what a convolution writes, cannot have a grid; None where nobody looked at it."""
    if site.nested:
        return None
    found = refused(site.input)
    if found:
        return f"its activation {found}"
    written = filter(None, map(refused, site.ends)) if site.op in _CALIBRATED else iter(())
    return next((f"its result {one}" for one in written), found)


def asked(site: Site, level: Level, refused: Callable[[str], str | None]) -> Choice:
    """What `site` becomes where `level` is asked for: that, or floats where there is no such form of it."""
    if level == "float":
        return Choice(("float",), "left in floats, as asked for")
    reason = site.refusal
    if not reason and level not in _FORMS.get(site.op, (level,)):
        reason = f"{level} was asked for, of which {site.op} has no form"
    if not reason and level == "static":
        found = _refused(site, refused)
        reason = _NESTED if site.nested else _UNSEEN if found is None else found
    return Choice(("float",), reason) if reason else Choice((level,), "as asked for")


def within(found: Choice, site: Site, dialect: Dialect) -> Choice:
    """`found` without the levels that the target does not read, and why they are not there."""
    lacking = {level: reason for level in found.levels if (reason := _lacking(site, level, dialect))}
    left = tuple(level for level in found.levels if level not in lacking)
    return Choice(left or ("float",), "; ".join(dict.fromkeys(lacking.values()))) if lacking else found


def _lacking(site: Site, level: Level, dialect: Dialect) -> str:
    """Why the target does not read `site` at `level`; empty where it does."""
    if level == "dynamic" and not dialect.dynamic:
        return "the target does not find ranges at run time: they take calibration data"
    if site.op == "LSTM" and level == "dynamic" and not dialect.contrib:
        return "an LSTM of integers is an operator of onnxruntime alone"
    if site.op == "Gather" and level != "float" and dialect.signed:
        return "the target does not look rows of integers up"
    if site.op == "ConvTranspose" and level == "static" and dialect.signed:
        return "transposed convolutions are computed in floats there"
    return ""


def grouped(sites: Sequence[Site], choices: Mapping[str, Choice]) -> list[Group]:
    """The sites that are decided together: of equal structure, and with the same choice; those without are left out."""
    together: defaultdict[tuple[str, tuple[Level, ...]], list[Site]] = defaultdict(list)
    for site in sites:
        if len(choices[site.name].levels) > 1:
            together[site.group, choices[site.name].levels].append(site)
    return [
        Group(found[0].name, tuple(site.name for site in found), float(sum(site.macs for site in found)), levels)
        for (_, levels), found in together.items()
    ]
