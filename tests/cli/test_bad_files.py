"""Every bad file is one clear error, by whichever way it comes in: nothing read outside, nothing written, no hang."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from corpora.bad import BAD, MARKER, Bad

# What, where, what to do about it.
ERROR = re.compile(r"error\[(GO\d{3})\]: (.+)\n  --> (.+)\n  hint: .+\n")
MOST_SECONDS = 20
MOST_MEMORY = 8 << 30

Told = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """What became of each case, all in one process that may take 8 GB of addresses."""
    folder = tmp_path_factory.mktemp("bad")
    report = folder / "report.json"
    temporary = folder / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "corpora.bad_run", str(folder), str(report), str(MOST_MEMORY)]
    environment = {
        **os.environ,
        "TMPDIR": str(temporary),
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "COLUMNS": "120",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    # The largest file has 24 MB; of it, and of what has 10,000,000 parts, there are copies for a moment.
    assert int(done.stdout) < 1_500_000
    assert list(temporary.iterdir()) == []
    loaded: Told = json.loads(report.read_text())
    return loaded


def test_there_are_enough_and_no_two_of_one_name() -> None:
    assert len(BAD) >= 200
    assert len({case.name for case in BAD}) == len(BAD)


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_a_bad_file_is_one_error(case: Bad, told: Told) -> None:
    found = told[case.name]
    for way, outcome in found["ways"].items():
        match = ERROR.fullmatch(outcome["err"])
        assert match, f"{way}: {outcome['err']}"
        assert match[1] == case.code, outcome["err"]
        assert re.search(case.words, match[2]), outcome["err"]
        assert match[3].startswith(found["path"])
        assert outcome["code"] == 3
        assert outcome["out"] == ""
        assert outcome["seconds"] < MOST_SECONDS
        assert MARKER.decode() not in outcome["err"]
    assert found["after"] == found["before"]
