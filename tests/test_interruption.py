"""Ctrl-C, SIGTERM and SIGHUP end every command within seconds with one line and exit 130, and leave nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
import torch

from model.backbones import build_backbone
from pipeline.build.builder import build
from pipeline.demo.generate import write_demo_data
from pipeline.signals import REPEAT_S
from tests.benchmarks.search.vectors import table_of, units
from tests.processes import PATIENCE_S, REPOSITORY, in_time, members, wait_until
from tests.shard_sets import build_options

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
COMMAND = """
import os, signal, time
import click
from commands.group import CommandError, Commands, interruptible

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

@click.group(cls=Commands)
@click.option("--debug", is_flag=True)
def main(debug):
    pass

@main.command()
def command():
{body}

main({words})
"""


def started(body, *options):
    code = COMMAND.format(
        body="\n".join(f"    {line}" for line in body.strip().splitlines()), words=[*options, "command"]
    )
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, text=True, **streams)


def ended(body, *options):
    process = started(body, *options)
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_interrupts(number):
    assert ended(f"os.kill(os.getpid(), {number:d})\ntime.sleep(3600)") == (130, "", "interrupted\n")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_the_process_was_started_to_ignore_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        process = started("click.echo('begun')\ninput()\nclick.echo('ended')")
    finally:
        signal.signal(number, before)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    assert process.communicate("go on\n", timeout=PATIENCE_S) == ("ended\n", "")
    assert process.returncode == 0


WORK = "with interruptible():\n    "
CONVERTED = {
    "ImportError": "try:\n    interrupt()\nexcept BaseException as error:\n    raise ImportError('in C') from error",
    "UsageError": "try:\n    interrupt()\nexcept BaseException:\n    raise click.UsageError('wrong') from None",
}
KEPT = "with interruptible(lambda: 'all of it is in a.json'):\n    "


@pytest.mark.parametrize("body", CONVERTED.values(), ids=CONVERTED)
def test_an_interruption_that_a_library_converts_is_one(body):
    """pybind11 raises ImportError if a signal arrives while an extension module is imported."""
    assert ended(WORK + body.replace("\n", "\n    ")) == (130, "", "interrupted\n")


def test_an_interruption_that_a_library_raises_from_outside_the_except_block_is_one():
    body = """
    try:
        interrupt()
    except BaseException as error:
        cause = error
    raise RuntimeError("export failed") from cause"""
    assert ended(WORK.rstrip() + body) == (130, "", "interrupted\n")


def test_an_interruption_that_a_finaliser_swallows_ends_the_command_later():
    body = """
    weakref.finalize(one := threading.Event(), interrupt)
    del one
    click.echo("swallowed")"""
    code, out, err = ended("import threading, weakref\n" + KEPT.rstrip() + body)
    assert (code, out) == (130, "swallowed\n")
    assert err.splitlines()[-1] == "interrupted; all of it is in a.json"


def test_the_line_says_what_is_kept():
    nested = KEPT + "with interruptible(lambda: ''), interruptible(lambda: 'b.json, too'):\n        interrupt()"
    assert ended(nested) == (130, "", "interrupted; b.json, too; all of it is in a.json\n")


def test_the_line_says_what_could_not_be_kept():
    body = KEPT + "try:\n        interrupt()\n    finally:\n        raise CommandError('a.png: cannot be written')"
    assert ended(body) == (130, "", "interrupted; all of it is in a.json; a.png: cannot be written\n")


def test_an_error_says_what_is_kept():
    code, _, err = ended(KEPT + "raise ValueError('a bug')")
    assert code == 1
    assert err.splitlines()[-2:] == ["ValueError: a bug", "all of it is in a.json"]


def test_debug_shows_where_a_command_was_interrupted():
    code, _, err = ended(WORK + "interrupt()", "--debug")
    assert (code, err.splitlines()[0], err.splitlines()[-1]) == (
        130,
        "Traceback (most recent call last):",
        "interrupted",
    )


def test_before_the_work_a_signal_cannot_be_swallowed():
    """Extension modules swallow exceptions while they are imported."""
    assert ended("try:\n    interrupt()\nexcept BaseException:\n    pass") == (130, "", "interrupted\n")


def test_a_second_signal_ends_the_cleanup():
    wait = "click.echo('{}')\n        time.sleep(3600)"
    process = started(WORK + f"try:\n        {wait.format('begun')}\n    finally:\n        {wait.format('cleaning')}")
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "cleaning\n"
    time.sleep(REPEAT_S)  # earlier it would count as the first one
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE_S) == ("", "interrupted\n")
    assert process.returncode == 130


SUSPENDED = """
    sum(interrupt() for _ in unordered_map(len, ["a", "b"], executor="process", workers=1))"""
TENSORS = """
    sum(interrupt() for _ in map_batches(lambda number: torch.ones(4), range(64), 2, 2))"""


def test_workers_of_a_suspended_generator_end_with_the_command():
    """The traceback keeps the generator, and Python waits for its workers, which ignore SIGTERM."""
    imports = "from pipeline.executors import unordered_map\n"
    assert ended(imports + WORK.rstrip() + SUSPENDED) == (130, "", "interrupted\n")


def test_a_command_whose_messages_nobody_reads_any_more_ends_like_others():
    """Ctrl-C ends the ``tee`` behind ``lrfr ... |& tee log``, too."""
    imports = "from pipeline.executors import unordered_map\ninput()\n"
    process = started(imports + WORK.rstrip() + SUSPENDED)
    process.stderr.close()
    process.stdin.write("go on\n")
    process.stdin.close()
    assert process.wait(PATIENCE_S) == 130
    process.stdout.close()


@pytest.mark.heavy
def test_killed_workers_that_sent_tensors_leave_no_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    imports = "import torch\nfrom benchmarks.speed.baselines import map_batches\n"
    assert ended(imports + WORK.rstrip() + TENSORS) == (130, "", "interrupted\n")
    assert list(tmp_path.iterdir()) == []


COPIES = 12


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Faces, most of them copies, and shards that keep a command busy for some seconds."""
    root = tmp_path_factory.mktemp("data")
    write_demo_data(root, identities=24, images=2, seed=0, layouts=["VGGFace2"])
    table = root / "VGGFace2" / "bb_landmark" / "loose_landmark_train.csv"
    with table.open("a") as rows:
        for row in table.read_text().splitlines()[1::2]:
            key, rest = row.split(",", 1)
            key = key.strip('"')
            path = root / "VGGFace2" / "train" / f"{key}.jpg"
            for number in range(COPIES):
                shutil.copy(path, path.with_stem(f"copy{number:02d}"))
                rows.write(f'"{key.split("/")[0]}/copy{number:02d}",{rest}\n')
    build(build_options(root / "VGGFace2", root / "shards"))
    return root


@pytest.fixture(scope="module")
def benchmarks(data):
    """Beside ``data``, what bench, embed and search need."""
    write_demo_data(data, identities=24, images=12, seed=0, layouts=["LFW", "QMUL-SurvFace"])
    torch.save(build_backbone("spherenet4").state_dict(), data / "net.pth")
    pq.write_table(table_of(units(9, 8)), data / "faces.parquet")


WAITING = """
import time
from pathlib import Path
import cli
from pipeline.progress import Progress

def wait(progress, count=1):
    Path("at-work").touch()
    time.sleep(3600)

Progress.update = wait
cli.main()
"""
# command -> words, and the path that shows that it is at work
COMMANDS = {
    "demo-data": (["{cli}", "demo-data", "--out", "{tmp}/faces"], "faces/*.partial/*"),
    "build-shards": (["{cli}", "build-shards", "--out", "{tmp}/set", "--images-per-shard", "1"], "set/*.done.json"),
    "verify": (["-c", WAITING, "verify", "{data}/shards"], "at-work"),
    "train": (
        ["{cli}", "train", "--out", "{tmp}/run", "--backbone", "spherenet4", "--batch-size", "8"],
        "run/metrics.jsonl",
    ),
    "bench": (["{cli}", "bench", "lfw", "--root", "{data}/LFW", "--network", "{data}/net.pth"], "cache/*"),
    "embed": (
        ["{cli}", "embed", "{data}/VGGFace2", "--network", "{data}/net.pth", "--out", "{tmp}/e.parquet"],
        "cache/*",
    ),
    "search": (["-c", WAITING, "search", *["{data}/faces.parquet"] * 2, "--out", "{tmp}/m.parquet"], "at-work"),
    "bench speed loader": (["{cli}", "bench", "speed", "loader", "--quick"], "tmp/lrfr-speed-*/*"),
    "bench speed build": (["{cli}", "bench", "speed", "build", "--quick"], "tmp/lrfr-speed-*/*"),
    "bench speed eval": (["{cli}", "bench", "speed", "eval", "--quick"], "tmp/lrfr-speed-*/*"),
}
HEAVY = [
    *((command, number, group, 0.3) for command in COMMANDS for number in SIGNALS for group in (False, True)),
    *((stage, number, True, delay) for stage in list(COMMANDS)[-2:] for number in SIGNALS for delay in (0.0, 1.0, 2.0)),
]
CASES = [
    ("build-shards", signal.SIGINT, True, 0.0),
    ("verify", signal.SIGHUP, False, 0.0),
    *(pytest.param(*case, marks=pytest.mark.heavy) for case in HEAVY),
]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "number", "group", "delay"), CASES)
def test_an_interrupted_command_ends_in_one_line_and_leaves_nothing(
    data, request, tmp_path, command, number, group, delay
):
    """A terminal and a batch system signal all processes that they started, ``kill`` only one."""
    words, sign = COMMANDS[command]
    if command not in ("demo-data", "build-shards", "verify", "train"):
        request.getfixturevalue("benchmarks")
    (tmp_path / "tmp").mkdir()
    (tmp_path / "shards").symlink_to(data / "shards")
    (tmp_path / "VGGFace2").symlink_to(data / "VGGFace2")
    process = subprocess.Popen(
        [sys.executable, *(word.format(data=data, tmp=tmp_path, cli=REPOSITORY / "cli.py") for word in words)],
        cwd=tmp_path,
        env={**os.environ, "LRFR_DATA": str(tmp_path), "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def at_work():
        assert process.poll() is None, process.stderr.read()
        return list(tmp_path.glob(sign))

    wait_until(at_work)
    time.sleep(delay)
    began = time.monotonic()
    (os.killpg if group else os.kill)(process.pid, number)
    lines = process.communicate(timeout=PATIENCE_S)[1].splitlines()
    seconds = time.monotonic() - began
    assert (process.returncode, lines[-1][:11]) == (130, "interrupted"), lines
    assert in_time(seconds), (seconds, lines)
    assert sum(line.startswith("interrupted") for line in lines) == 1
    assert not [line for line in lines if re.search("Traceback|Error|ignored|leaked", line)], lines
    wait_until(lambda: not members(process.pid))  # Python's resource tracker ends a moment after us
    assert [
        path for path in (tmp_path / "tmp").iterdir() if not path.name.startswith("torchinductor_")
    ] == []  # PyTorch's
    assert list(tmp_path.rglob("*.partial*")) == []
