"""Pairs of models that an equivalence checker is judged by: wrong rewrites to be caught, right ones to be passed.

`PAIRS` has them all. Each wrong pair has a witness, each right one a reason; `selfcheck` shows both without a checker.
The text of a pair is written from how rewrites go wrong, not from what a checker sees: a pair is changed only when it
is itself shown wrong.
"""

from pairs import decoders, encoders, integers, interface, shapes, special
from pairs.base import Pair

PAIRS: tuple[Pair, ...] = tuple(
    pair
    for theme in (encoders, decoders, shapes, integers, special, interface)
    for pair in (*theme.WRONG, *theme.RIGHT)
) + tuple(interface.RANDOM)

WRONG = tuple(pair for pair in PAIRS if not pair.right)
RIGHT = tuple(pair for pair in PAIRS if pair.right)

__all__ = ["PAIRS", "RIGHT", "WRONG", "Pair"]
