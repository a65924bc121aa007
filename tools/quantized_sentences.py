"""Sentences for an embedding model: what docstrings of installed packages begin with, split by hash."""

import ast
import hashlib
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Feed = dict[str, npt.NDArray[np.int64]]

PACKAGES = ("click", "matplotlib", "networkx", "numpy", "onnx", "rich", "scipy", "sklearn", "sympy", "torch")
"""Where the docstrings are taken from."""

SPLITS = {"calib": 128, "search": 96, "eval": 512, "final": 512}
"""How many sentences each part has. No sentence is in two of them, whatever their sizes."""

BATCH = 8
"""Sentences in one feed, padded to the longest of them."""

LONGEST = 128
"""Tokens after which a sentence is cut."""

_SENTENCE = re.compile(r"[A-Z][^.:\n]*(?:\n[^.:\n]+)*\.")


def sentences() -> dict[str, list[str]]:
    """The sentences of each part of `SPLITS`, in the order of their hashes. Raises: LookupError for too few."""
    parts: dict[str, list[str]] = {name: [] for name in SPLITS}
    hashes = sorted((hashlib.sha256(text.encode()).digest(), text) for text in _all())
    for digest, text in hashes:
        parts[list(SPLITS)[digest[-1] % len(SPLITS)]].append(text)
    for name, texts in parts.items():
        if len(texts) < SPLITS[name]:
            raise LookupError(f"{len(texts)} sentences for '{name}', which needs {SPLITS[name]}: {', '.join(PACKAGES)}")
    return {name: texts[: SPLITS[name]] for name, texts in parts.items()}


def batches(texts: Sequence[str], tokenizer: Tokenizer) -> Iterator[Feed]:
    """Feeds of `BATCH` sentences: `input_ids`, `attention_mask`, `token_type_ids`, each (B, S), S the longest's."""
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding()
    for start in range(0, len(texts), BATCH):
        encoded = tokenizer.encode_batch(texts[start : start + BATCH])
        yield {
            "input_ids": np.array([part.ids for part in encoded], np.int64),
            "attention_mask": np.array([part.attention_mask for part in encoded], np.int64),
            "token_type_ids": np.array([part.type_ids for part in encoded], np.int64),
        }


def _all() -> set[str]:
    """The first sentence of every docstring, of 24 to 400 characters."""
    found: set[str] = set()
    for package in PACKAGES:
        for path in sorted(_root(package).rglob("*.py")):
            for docstring in _docstrings(path):
                match = _SENTENCE.match(docstring.strip())
                text = " ".join(match[0].split()) if match else ""
                if 24 <= len(text) <= 400:
                    found.add(text)
    return found


def _root(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise LookupError(f"the package '{package}' is not installed: its docstrings are the data")
    return Path(spec.origin).parent


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
