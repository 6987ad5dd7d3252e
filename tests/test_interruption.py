"""Ctrl-C and SIGTERM end a command with 130 and one line, wherever they come and whatever becomes of the exception."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

COMMAND = """
import ctypes, gc, os, signal, tempfile, time, weakref
import click
from commands.group import Commands

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

class Thing:
    pass

class Finalised:
    def __del__(self):
        interrupt()
        click.echo("finalised")

@click.group(cls=Commands)
def main():
    pass

@main.command()
def command():
{body}

main(["command"])
"""


def started(body):
    code = COMMAND.format(body="\n".join(f"    {line}" for line in body.strip().splitlines()))
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, text=True, **streams)


def ended(body):
    process = started(body)
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


GOES_ON = "\ntime.sleep(10)\nclick.echo('went on')"
SWALLOWED = {
    "weak reference": "thing = Thing()\nkept = weakref.ref(thing, lambda _: interrupt())\ndel thing",
    "garbage collection": "gc.callbacks.append(lambda *_: gc.callbacks.clear() or interrupt())\ngc.collect()",
    "fork": "os.register_at_fork(after_in_parent=interrupt)\nos.fork() or os._exit(0)",
    "C": "ctypes.CFUNCTYPE(None)(interrupt)()",
}


@pytest.mark.parametrize("body", SWALLOWED.values(), ids=SWALLOWED)
def test_what_python_swallows_is_raised_again_at_once(body):
    began = time.monotonic()
    assert ended(body + GOES_ON) == (130, "", "interrupted\n")
    assert time.monotonic() - began < 5


def test_a_finaliser_is_let_end_before():
    assert ended("Finalised()" + GOES_ON) == (130, "finalised\n", "interrupted\n")


CHANGED = {
    "swallowed": "try:\n    interrupt()\nexcept BaseException:\n    pass",
    "another exception": "try:\n    interrupt()\nexcept BaseException:\n    raise RuntimeError('from C') from None",
    "a usage error": "try:\n    interrupt()\nexcept BaseException:\n    raise click.UsageError('wrong') from None",
}


@pytest.mark.parametrize("body", CHANGED.values(), ids=CHANGED)
def test_whatever_becomes_of_the_exception_the_command_was_interrupted(body):
    assert ended(body) == (130, "", "interrupted\n")


KEPT = "from commands.group import CommandError, interruptible\nwith interruptible(lambda: 'all of it is in a.json'):\n    "


@pytest.mark.parametrize("changed", ["another exception", "a usage error"])
def test_what_is_kept_is_told_whatever_becomes_of_the_exception(changed):
    assert ended(KEPT + CHANGED[changed].replace("\n", "\n    ")) == (130, "", "interrupted; all of it is in a.json\n")


def test_what_could_not_be_kept_is_told_too():
    body = KEPT + "try:\n        interrupt()\n    finally:\n        raise CommandError('a.png: cannot be written')"
    assert ended(body) == (130, "", "interrupted; all of it is in a.json; a.png: cannot be written\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts(number):
    assert ended(f"os.kill(os.getpid(), {number:d})\ntime.sleep(10)") == (130, "", "interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_the_process_was_started_to_ignore_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        process = started("click.echo('begun')\ntime.sleep(0.5)\nclick.echo('ended')")
    finally:
        signal.signal(number, before)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    assert process.communicate(timeout=20) == ("ended\n", "")
    assert process.returncode == 0


def test_cleaning_up_is_not_disturbed_by_what_was_swallowed_in_it():
    body = """
try:
    raise ValueError
finally:
    thing = Thing()
    kept = weakref.ref(thing, lambda _: interrupt())
    del thing
    time.sleep(0.3)
    click.echo("cleaned up")
"""
    assert ended(body) == (130, "cleaned up\n", "interrupted\n")


def test_a_folder_is_removed_whole():
    body = """
unlink = os.unlink
with tempfile.TemporaryDirectory() as folder:
    open(folder + "/a", "w").close()
    open(folder + "/b", "w").close()
    click.echo(folder)
    os.unlink = lambda *names, **where: (interrupt(), unlink(*names, **where))
"""
    code, out, err = ended(body)
    assert (code, err) == (130, "interrupted\n")
    (folder,) = out.splitlines()
    assert not Path(folder).exists()


LOCK = """
class Lock:
    held = 0
    def __enter__(self):
        {}
    def __exit__(self, *error):
        {}
lock = Lock()
try:
    for _ in range(100):
        with lock:
            time.sleep(0.1)
finally:
    click.echo(lock.held)
"""
NOW = "os.kill(os.getpid(), signal.SIGINT)"
LOCKS = {
    "taken": LOCK.format(f"self.held += 1; {NOW}", "self.held -= 1"),
    "given back": LOCK.format("self.held += 1", f"{NOW}; self.held -= 1"),
}


@pytest.mark.parametrize("body", LOCKS.values(), ids=LOCKS)
def test_no_lock_is_left_held(body):
    """threading.Condition takes and gives back its lock in Python functions: an exception in between would keep it."""
    assert ended(body) == (130, "0\n", "interrupted\n")


def test_a_second_signal_ends_the_wait_for_a_lock():
    process = started(LOCK.format("os.write(1, b'begun\\n'); time.sleep(30)", "pass"))
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.5)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=5) == ("0\n", "interrupted\n")
    assert process.returncode == 130


def test_a_second_signal_ends_what_cleans_up():
    process = started(
        "try:\n    click.echo('begun')\n    time.sleep(10)\nfinally:\n    click.echo('cleaning')\n    time.sleep(10)"
    )
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=5) == ("", "interrupted\n")
    assert process.returncode == 130


def test_behind_the_command_one_signal_changes_nothing_and_two_end_the_process():
    once = "import atexit\natexit.register(click.echo, 'left')\natexit.register(interrupt)"
    assert ended(once) == (0, "left\n", "")
    assert ended(once + "\natexit.register(interrupt)")[0] == -signal.SIGINT


def members(session):
    """Processes of a session that are at work."""
    stats = [path.read_text().rpartition(") ")[2].split() for path in Path("/proc").glob("[0-9]*/stat")]
    return [stat for stat in stats if int(stat[3]) == session and stat[0] != "Z"]


@pytest.mark.heavy
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("delay", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("stage", ["loader", "build", "eval", "scale"])
def test_ctrl_c_reaches_the_workers_too_and_nothing_is_left(tmp_path, stage, delay, number):
    """A terminal signals the whole group, a batch system all that it has started."""
    process = subprocess.Popen(
        [sys.executable, "cli.py", "bench", "speed", stage, "--quick"],
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not process.stderr.readline().startswith("demo-data: "):  # the stage's own work follows
        assert process.poll() is None
    time.sleep(delay)
    os.killpg(process.pid, number)
    *said, last = process.communicate(timeout=60)[1].splitlines()
    assert (process.returncode, last.partition(";")[0]) == (130, "interrupted"), last  # tables: 1, is above, may follow
    assert not any(word in line for line in said for word in ("Traceback", "Error", "ignored", "leaked")), said
    deadline = time.monotonic() + 5  # Python's own tracker of semaphores ends a moment after us
    while members(process.pid):
        assert time.monotonic() < deadline, members(process.pid)
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []
