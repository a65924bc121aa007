"""What the words on a command line mean: sizes, bindings, shapes."""

from __future__ import annotations

import math
import re
from typing import Any

import click

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


class Size(click.ParamType[int]):
    """`512MB`, `2 GB`, `4GiB` or a number of bytes, as bytes."""

    name = "size"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]i?)?b?", value.strip(), re.IGNORECASE)
        if found is None:
            self.fail(f"'{value}' is not a size such as 512MB or 2GiB", param, ctx)
        return int(float(found[1]) * _UNITS[(found[2] or "").lower()])


class Binding(click.ParamType[tuple[str, int]]):
    """`NAME=N` with N > 0, as (name, number)."""

    name = "name=n"

    def convert(
        self, value: str | tuple[str, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        name, _, number = value.rpartition("=")
        if not name or not number.isdecimal() or int(number) == 0:
            self.fail(f"'{value}' is not NAME=N with a number N > 0", param, ctx)
        return name, int(number)


class NamedShape(click.ParamType[tuple[str, tuple[int, ...]]]):
    """`NAME=1,128`, as (name, shape)."""

    name = "name=shape"

    def convert(
        self, value: str | tuple[str, tuple[int, ...]], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        if isinstance(value, tuple):
            return value
        name, _, shape = value.rpartition("=")
        if not name or re.fullmatch(r"\d+(,\d+)*", shape) is None:
            self.fail(f"'{value}' is not NAME=SIZES, such as ids=1,128", param, ctx)
        return name, tuple(map(int, shape.split(",")))


class Smooth(click.ParamType[float | str]):
    """`auto`, `off`, or an exponent from 0 to 1."""

    name = "auto|off|alpha"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if value in ("auto", "off"):
            return value
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number <= 1:
            self.fail(f"'{value}' is not auto, off, or a number from 0 to 1", param, ctx)
        return number


class Choose(click.ParamType[tuple[str, str]]):
    """`PATTERN=SCHEME`, as (pattern, scheme)."""

    name = "pattern=scheme"

    def convert(
        self, value: str | tuple[str, str], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        pattern, _, scheme = value.rpartition("=")
        if not pattern or not scheme:
            self.fail(f"'{value}' is not PATTERN=SCHEME, such as '*down_proj*=weights8'", param, ctx)
        return pattern, scheme


class Number(click.FloatRange):
    """A number in a range, and no NaN, of which every comparison is false."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"'{value}' is not a number", param, ctx)
        return number


SIZE = Size()
SMOOTH = Smooth()
CHOOSE = Choose()
BINDING = Binding()
NAMED_SHAPE = NamedShape()
