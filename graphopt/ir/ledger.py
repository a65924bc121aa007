"""What all scopes of one model share: the names that were ever used, the undo journal, and what changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphopt.ir.dims import Shape, Unknowns

if TYPE_CHECKING:
    from graphopt.ir.node import Node

Undo = tuple[Callable[..., None], tuple[Any, ...]]


class Ledger:
    """Names are never used twice for different meanings, so that a name that survives is evidence.

    `base` is the folder that external data is relative to; `changes` the nodes that mutations touched, in order: what
    has new inputs, attributes or types, and what has more or fewer readers. `inferred` is the moment up to which type
    inference has seen them, -1 before it ran.
    """

    def __init__(self, base: Path | None = None) -> None:
        self.base = base
        self.names: set[str] = set()
        self.unknowns = Unknowns()
        self.journal: list[Undo] | None = None
        self.changes: list[Node] = []
        self.inferred = -1
        self._next: dict[str, int] = {}
        self._shapes: dict[Shape, Shape] = {}
        self._serial = -1 << 62

    def serial(self) -> int:
        """A rank for a source: grows, and stays below that of every operation."""
        self._serial += 1
        return self._serial

    def fresh(self, stem: str) -> str:
        """A name that no value of the model has or had: `stem` itself, or `stem_1`, `stem_2`, ..."""
        name = stem
        while not name or name in self.names:
            self._next[stem] = number = self._next.get(stem, 0) + 1
            name = f"{stem}_{number}"
        self.names.add(name)
        return name

    def shared(self, shape: Shape) -> Shape:
        """An equal shape, always the same object: a hundred thousand values have few different ones."""
        return self._shapes.setdefault(shape, shape)

    def log(self, undo: Callable[..., None], *args: Any) -> None:
        if self.journal is not None:
            self.journal.append((undo, args))

    def mark(self) -> int:
        """A moment: what is touched later is `since` it."""
        return len(self.changes)

    def since(self, mark: int) -> list[Node]:
        """The nodes touched after `mark` that are still there, each once, in the order in which they were touched."""
        return [node for node in dict.fromkeys(self.changes[mark:]) if node in node.graph]

    def forget(self) -> None:
        """Lets go of what changed, which keeps nodes alive that are gone; a mark means nothing afterwards."""
        self.changes.clear()
        self.inferred = -1

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Every mutation inside can be taken back with `rollback()`; an exception takes it back by itself."""
        if self.journal is not None:
            raise RuntimeError("transactions do not nest")
        self.journal = []
        transaction = Transaction(self)
        try:
            yield transaction
        except BaseException:
            transaction.rollback()
            raise
        finally:
            self.journal = None


class Transaction:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._mark = ledger.mark()
        self._inferred = ledger.inferred

    def rollback(self) -> None:
        """Puts the graphs back as they were when the transaction began."""
        journal, self._ledger.journal = self._ledger.journal or [], None
        for undo, args in reversed(journal):
            undo(*args)
        self._ledger.journal = []
        del self._ledger.changes[self._mark :]
        self._ledger.inferred = self._inferred
