"""Load and save stay within their budget: CPU seconds and bytes per node."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_load_and_save_stay_within_their_budget(root: Path) -> None:
    command = [sys.executable, str(root / "tools" / "scale.py"), "--nodes", "40000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "met" in done.stdout
