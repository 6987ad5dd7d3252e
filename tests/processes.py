"""Processes that tests start, wait for and read the errors of."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
PATIENCE_S = 900  # only something that hangs takes so long, on any machine and under any load
LIMIT_S = 3  # or, on a slow or busy machine, four times the time of IMPORTS
IMPORTS = "import cli, benchmarks.engine.runner, pipeline.build, pipeline.load.loader, model.training.loop"


def torchrun(ranks, script, *words):
    """Runs a script in several processes, in the repository's folder."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={ranks}",
        script,
        *words,
    ]
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    words, streams = list(map(str, command)), {"capture_output": True, "text": True}
    return subprocess.run(words, cwd=REPOSITORY, env=environment, timeout=PATIENCE_S, **streams)


def wait_until(condition):
    """Waits for ``condition()``; fails after ``PATIENCE_S``."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def error_of(process, code=1):
    """The line that a failed command ends with, instead of a traceback."""
    assert process.returncode == code, process.stderr
    assert "Traceback" not in process.stderr
    return process.stderr.splitlines()[-1]


def members(session):
    """Running processes of a session."""
    stats = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            stats.append(path.read_text().rpartition(") ")[2].split())
    return [stat for stat in stats if int(stat[3]) == session and stat[0] != "Z"]


def in_time(seconds):
    """True if a command that ended after so many seconds was fast enough for how busy the machine is."""
    if seconds < LIMIT_S:
        return True
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", IMPORTS], cwd=REPOSITORY, check=True, timeout=PATIENCE_S)
    return seconds < 4 * (time.monotonic() - began)
