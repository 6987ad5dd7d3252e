"""The examples run as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import PATIENCE_S, REPOSITORY


@pytest.mark.heavy
def test_python_api(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples" / "python_api.py"), str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert lines[0].startswith("32 images of 8 people")
    assert lines[1].startswith("n0000")
    assert "images (4, 4, 128, 128, 3) torch.uint8" in lines[2]
    auc, low, high = map(float, re.fullmatch(r".*AUC ([\d.]+), 95 % interval ([\d.]+) to ([\d.]+)", lines[3]).groups())
    assert 0 <= low <= auc <= high <= 1
    assert (tmp_path / "run" / "checkpoints" / "0000010.pt").exists()
