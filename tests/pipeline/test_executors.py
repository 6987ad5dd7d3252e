"""The worker pool and the unordered map: results, errors, deaths, and signals that workers do not receive."""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

import pipeline.executors
from pipeline.executors import WorkerError, WorkerPool, unordered_map
from shards.errors import ShardError
from tests.pipeline.worker_tasks import double, fail, fail_for_good, hang_first, kill, stop, stop_first, wait
from tests.processes import PATIENCE_S, REPOSITORY


@pytest.mark.parametrize("executor", ["serial", "process"])
@pytest.mark.parametrize("tasks", [0, 1, 20])
def test_every_task_is_done_once(executor, tasks):
    assert sorted(unordered_map(double, range(tasks), executor=executor, workers=2)) == list(range(0, 2 * tasks, 2))
    assert not multiprocessing.active_children()


def test_a_daemonic_process_is_told_how_to_build(monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with pytest.raises(WorkerError, match=r"may not start others; build with executor='serial'"), WorkerPool(1):
        pass
    assert list(unordered_map(double, [1], executor="serial", workers=1)) == [2]


def test_large_tasks_and_results_fit_through_the_pipes():
    tasks = [bytes([number]) * 3_000_000 for number in range(5)]
    assert sorted(unordered_map(double, tasks, executor="process", workers=2)) == [2 * task for task in tasks]


def test_tasks_are_drawn_as_workers_become_free():
    drawn = []
    tasks = (drawn.append(number) or number for number in range(100))
    results = unordered_map(double, tasks, executor="process", workers=2)
    next(results)
    assert len(drawn) == 3
    results.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("executor", ["serial", "process"])
def test_the_error_of_a_task_is_raised(executor):
    with pytest.raises(ShardError, match="task 7") as error:
        list(unordered_map(fail, [7], executor=executor, workers=1))
    assert str(error.value) == "task 7"
    if executor == "process":
        assert "in fail" in error.value.__notes__[0]  # the worker's traceback


def test_a_result_that_cannot_be_sent_is_an_error_here():
    with pytest.raises(Exception, match="fail_for_good"):
        list(unordered_map(fail_for_good, [1], executor="process", workers=1))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_workers_do_not_receive_signals_of_the_group(number):
    with WorkerPool(1) as pool:
        (process,) = multiprocessing.active_children()
        os.kill(process.pid, number)  # while it starts
        assert list(pool.map(wait, [0])) == [process.pid]
        os.kill(process.pid, number)
        assert list(pool.map(wait, [0])) == [process.pid]


def test_busy_workers_are_killed_at_the_end_of_the_block():
    with WorkerPool(2) as pool:
        processes = multiprocessing.active_children()
        assert len(processes) == 2
        results = pool.map(wait, [0, 2 * PATIENCE_S])
        next(results)
        began = time.monotonic()
    assert time.monotonic() - began < PATIENCE_S
    assert not any(process.is_alive() for process in processes)


def test_a_pool_whose_pipes_the_garbage_collector_has_closed_ends(monkeypatch):
    """The end of an interrupted command showed a traceback, on Python 3.13."""

    def suspended(pool):
        try:
            yield
        finally:
            pool.__exit__()
            done.append(pool.process_ids)

    ignored, done = [], []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    pool = WorkerPool(1).__enter__()
    process_id = pool.process_ids[0]
    pool.cycle = suspended(pool)  # younger than the pipes, which are finalised before it
    next(pool.cycle)
    del pool
    gc.collect()
    assert (ignored, done) == ([], [[]])
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)


def test_workers_are_killed_if_one_cannot_be_started(monkeypatch):
    started = []
    start = multiprocessing.process.BaseProcess.start

    def fail_second(process):
        if started:
            raise BlockingIOError("no more processes")
        started.append(process)
        start(process)

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", fail_second)
    with pytest.raises(BlockingIOError), WorkerPool(2):
        pytest.fail("the block must not be entered")
    assert len(started) == 1
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("tasks", [[signal.SIGKILL], [0, signal.SIGKILL, 0, 0]])
def test_a_killed_worker_is_a_worker_error(tasks):
    with pytest.raises(WorkerError, match=r"^a worker process died \(out of memory\?\)$"):
        list(unordered_map(kill, tasks, executor="process", workers=1))
    assert not multiprocessing.active_children()


def test_a_worker_killed_between_tasks_is_a_worker_error():
    with WorkerPool(1) as pool:
        (process,) = multiprocessing.active_children()
        assert list(pool.map(double, [1])) == [2]
        process.kill()
        process.join()
        with pytest.raises(WorkerError):
            list(pool.map(double, [1]))


def test_a_worker_that_ends_by_itself_is_a_worker_error():
    with pytest.raises(WorkerError, match=r"^a worker process died \(exit code 3\)$"):
        list(unordered_map(os._exit, [3], executor="process", workers=1))


@pytest.fixture
def impatient(monkeypatch):
    for name, seconds in (("POLL_S", 0.05), ("STOPPED_S", 0.2), ("HUNG_S", 2.0)):
        monkeypatch.setattr(pipeline.executors, name, seconds)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (stop_first, "has been stopped for"),
        pytest.param(hang_first, "has done nothing for", marks=pytest.mark.heavy),
    ],
)
def test_a_stopped_or_hung_worker_is_named_and_replaced(function, problem, impatient, tmp_path, capsys):
    with WorkerPool(1) as pool:
        (first,) = multiprocessing.active_children()
        (second,) = pool.map(function, [tmp_path / "marker"])
        assert second != first.pid
        assert not first.is_alive()
        assert list(pool.map(double, [1, 2])) == [2, 4]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"worker process {first.pid} ({tmp_path}/")
    assert problem in line
    assert line.endswith("; another one takes its place")
    assert not multiprocessing.active_children()


@pytest.mark.heavy
def test_a_task_at_which_two_workers_stop_is_an_error(impatient, tmp_path):
    with pytest.raises(
        WorkerError, match=r"^worker process \d+ \(.*\) has been stopped for .*, like the one before it$"
    ):
        list(unordered_map(stop, [tmp_path], executor="process", workers=1))
    assert not multiprocessing.active_children()


@pytest.mark.heavy
def test_a_worker_stopped_before_it_reads_a_large_task_is_replaced(impatient, monkeypatch, capsys):
    """The pipe holds less than the task: the parent waits for the worker to read it."""
    began, task = time.monotonic(), bytes(3_000_000)
    assert list(unordered_map(len, [b""], executor="process", workers=1)) == [0]
    monkeypatch.setattr(pipeline.executors, "HUNG_S", max(2.0, 5 * (time.monotonic() - began)))
    with WorkerPool(1) as pool:
        (first,) = multiprocessing.active_children()
        assert list(pool.map(len, [task])) == [3_000_000]
        os.kill(first.pid, signal.SIGSTOP)
        assert list(pool.map(len, [task])) == [3_000_000]
    assert re.search(r"has not read its task for \d+ s; another one takes its place", capsys.readouterr().err)


SCRIPT = """
import multiprocessing, sys
from pipeline.executors import unordered_map
from tests.pipeline.worker_tasks import double
print(sorted(unordered_map(double, [1, 2], executor="process", workers=2)))
assert sys.modules["__main__"].double is double
multiprocessing.set_start_method("spawn")
"""


def test_a_script_needs_no_main_guard_and_may_set_the_start_method_afterwards(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True)
    assert (process.stdout, process.stderr) == ("[2, 4]\n", "")


def test_a_worker_without_room_for_its_thread_sends_the_error(monkeypatch):
    def fail(thread):
        raise RuntimeError("can't start new thread")

    ours, theirs = multiprocessing.Pipe()
    ours.send((double, 1))
    monkeypatch.setattr(threading.Thread, "start", fail)
    pipeline.executors._work(theirs)
    result, error = ours.recv()
    assert (result, str(error)) == (None, "can't start new thread")
