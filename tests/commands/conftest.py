"""Commands in a process of their own, and interrupted ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.processes import PATIENCE_S, REPOSITORY


@pytest.fixture
def run_process(tmp_path):
    """As ``run``, in an interpreter of its own: for tests of what only a process shows."""

    def runner(*words):
        environment = {**os.environ, "LRFR_DATA": str(tmp_path)}
        command = [sys.executable, str(REPOSITORY / "cli.py"), *map(str, words)]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE_S
        )

    return runner


@pytest.fixture
def interrupted(run, monkeypatch):
    """Runs a command that is interrupted by the given call of a function; returns its last line."""

    def runner(module, name, call, words):
        function, calls = getattr(module, name), []

        def interrupting(*arguments, **options):
            calls.append(arguments)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGINT)
            return function(*arguments, **options)

        monkeypatch.setattr(module, name, interrupting)
        result = run(*words)
        assert result.returncode == 130
        return result.stderr.splitlines()[-1]

    return runner
