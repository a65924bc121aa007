"""Files that are no good models, each broken in one way: what a run must refuse, with which code and in which words.

A maker writes `model.onnx`, and what belongs to it, into an empty folder. Beside that folder lies `secret.bin`, which
no run may read: its bytes are `MARKER`, over and over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .bad_external import EXTERNAL
from .bad_files import FILES
from .bad_graphs import GRAPHS
from .bad_tensors import TENSORS

MARKER = b"bytes of another folder "
SECRET = "secret.bin"
MODEL = "model.onnx"


@dataclass(frozen=True)
class Bad:
    """`make` writes it; `words` is a regular expression that is found in the message."""

    name: str
    make: Callable[[Path], None]
    code: str
    words: str


def _cases() -> Iterator[Bad]:
    for kind, cases in (("file", FILES), ("tensor", TENSORS), ("external", EXTERNAL), ("graph", GRAPHS)):
        for name, (make, code, words) in cases.items():
            yield Bad(f"{kind}: {name}", make, code, words)


BAD = tuple(_cases())


def write(case: Bad, folder: Path) -> Path:
    """Makes `folder`, which does not exist, with the case in it, and the secret beside it; returns the model's path."""
    folder.mkdir()
    (folder.parent / SECRET).write_bytes(MARKER * 200)
    case.make(folder)
    return folder / MODEL
