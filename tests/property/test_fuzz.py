"""A few seconds of tools/fuzz.py, the same inputs every time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import fuzz
from fuzzing.case import Finding
from fuzzing.seeds import Pool, write_pool
from fuzzing.worker import Worker

pytestmark = pytest.mark.xdist_group("fuzz")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return write_pool(tmp_path_factory.mktemp("fuzz") / "pool", groups=("rules", "pairs", "exotic"))


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as worker:
        yield worker


@pytest.mark.parametrize(("kind", "count"), [("bytes", 30), ("protos", 25), ("graphs", 15)])
def test_nothing_is_found(pool: Pool, worker: Worker, kind: str, count: int) -> None:
    found: dict[int, tuple[Finding, ...]] = {}
    rewritten = 0
    for number in range(count):
        outcome = worker.try_case(fuzz.made(kind, 0, number, pool))
        rewritten += "rewritten" in outcome.facts
        if outcome.findings:
            found[number] = outcome.findings
    assert not found
    assert rewritten > count / 20, "the inputs are too far from what rules look for"


def test_inputs_follow_from_their_number(pool: Pool) -> None:
    for kind in fuzz.KINDS:
        assert fuzz.made(kind, 7, 3, pool) == fuzz.made(kind, 7, 3, pool)
        assert fuzz.made(kind, 7, 3, pool) != fuzz.made(kind, 7, 4, pool)
