"""Valid models that few tools have met: each says, in its docstring, what is exotic about it.

`EXOTICS` has them all; each is made on demand, and stands under a name like `control/zero_trips`.
"""

from corpora.exotic import (
    bits,
    classic,
    containers,
    control,
    external,
    functions,
    interface,
    metadata,
    narrow,
    opsets,
    tempting,
    training,
)
from corpora.exotic.base import Exotic, Feeds, Made, drawn

EXOTICS: tuple[Exotic, ...] = tuple(
    model
    for theme in (
        functions,
        control,
        containers,
        bits,
        narrow,
        metadata,
        interface,
        classic,
        opsets,
        training,
        tempting,
        external,
    )
    for model in theme.exotic.models
)

__all__ = ["EXOTICS", "Exotic", "Feeds", "Made", "drawn"]
