"""What the workers of ``test_executors`` do, without pytest and PyTorch, so that they start sooner."""

from __future__ import annotations

import os
import signal
import time

from shards.errors import ShardError


def double(task):
    return 2 * task


def wait(seconds):
    time.sleep(seconds)
    return os.getpid()


def fail(task):
    raise ShardError(f"task {task}")


def fail_for_good(task):
    return lambda: task


def kill(number):
    os.kill(os.getpid(), number)


def stop_first(marker):
    """Stops the worker that comes first, as a debugger or a batch system does."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    return os.getpid()


def hang_first(marker):
    if not marker.exists():
        marker.touch()
        time.sleep(1000)
    return os.getpid()


def stop(marker):
    os.kill(os.getpid(), signal.SIGSTOP)
