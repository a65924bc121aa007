"""What all scopes of one model share: the names that were ever used, and the undo journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graphopt.ir.dims import Unknowns

Undo = tuple[Callable[..., None], tuple[Any, ...]]


class Ledger:
    """Names are never used twice for different meanings, so that a name that survives is evidence.

    `base` is the folder that external data is relative to.
    """

    def __init__(self, base: Path | None = None) -> None:
        self.base = base
        self.names: set[str] = set()
        self.unknowns = Unknowns()
        self.journal: list[Undo] | None = None
        self._next: dict[str, int] = {}
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

    def log(self, undo: Callable[..., None], *args: Any) -> None:
        if self.journal is not None:
            self.journal.append((undo, args))

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

    def rollback(self) -> None:
        """Puts the graphs back as they were when the transaction began."""
        journal, self._ledger.journal = self._ledger.journal or [], None
        for undo, args in reversed(journal):
            undo(*args)
        self._ledger.journal = []
