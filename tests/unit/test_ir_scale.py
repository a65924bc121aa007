"""Load and save stay within their budget: CPU seconds and bytes per node."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_load_and_save_stay_within_their_budget(root: Path) -> None:
    command = [sys.executable, str(root / "tools" / "scale.py"), "--nodes", "40000"]
    # Other processes slow this one down, up to seven times; what is too slow by itself is so every time.
    runs = (subprocess.run(command, capture_output=True, text=True, check=False) for _ in range(3))
    said = []
    for done in runs:
        if done.returncode == 0:
            break
        said.append(done.stdout + done.stderr)
    assert len(said) < 3, "\n".join(said)
    assert "met" in done.stdout
