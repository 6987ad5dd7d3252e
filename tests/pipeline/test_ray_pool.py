"""The pool of workers on a Ray cluster of two machines' processes: results, errors, and lost workers and machines."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from pipeline.executors import WorkerError, unordered_map
from pipeline.ray_pool import RayPool
from shards.errors import ShardError
from tests.processes import PATIENCE_S, wait_until

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def pool(cluster):
    """Two workers; connecting takes seconds."""
    with RayPool(2, cluster.address) as made:
        yield made


def double(task):
    return 2 * task


def fail(marker):
    marker.write_text(marker.read_text() + "tried\n" if marker.exists() else "tried\n")
    raise ShardError(f"task {marker.name}")


def lock(task):
    return threading.Lock()


def die(folder):
    (folder / f"{os.getpid()}.pid").touch()
    os.kill(os.getpid(), signal.SIGKILL)


def held(task):
    """Leaves the id of its process, and waits until the folder has the file ``go``."""
    folder, number = task
    (folder / f"{number}-{time.monotonic_ns()}-{os.getpid()}.pid").touch()
    while not (folder / "go").exists():
        time.sleep(0.02)
    return number, os.getpid()


def pids(folder):
    return [int(path.stem.rpartition("-")[2]) for path in sorted(folder.glob("*.pid"))]


@pytest.mark.parametrize("tasks", [0, 1, 20])
def test_every_task_is_done_once(pool, tasks):
    assert sorted(pool.map(double, range(tasks))) == list(range(0, 2 * tasks, 2))


def test_large_tasks_and_results(pool):
    tasks = [bytes([number]) * 3_000_000 for number in range(5)]
    assert sorted(pool.map(double, tasks)) == [2 * task for task in tasks]


def test_tasks_are_drawn_as_workers_become_free(pool):
    drawn = []
    results = pool.map(double, (drawn.append(number) or number for number in range(100)))
    next(results)
    assert len(drawn) <= 3
    results.close()


def test_all_cpus_of_the_cluster_work_by_default(pool, cluster, tmp_path):
    """An application that is connected stays so."""
    with RayPool(None, cluster.address) as whole:
        drawn = next_in_thread(whole.map(held, [(tmp_path, number) for number in range(4)]))
        wait_until(lambda: len(set(pids(tmp_path))) == 2)
        (tmp_path / "go").touch()
        assert sorted(number for number, _ in drawn()) == [0, 1, 2, 3]
    assert ray.is_initialized()


def next_in_thread(results):
    """Starts to draw all results; returns a function that waits for them."""
    executor = concurrent.futures.ThreadPoolExecutor(1)
    future = executor.submit(list, results)
    return lambda: future.result(timeout=PATIENCE_S)


def test_the_error_of_a_task_is_raised_and_not_tried_again(pool, tmp_path):
    with pytest.raises(ShardError, match="task marker") as error:
        list(pool.map(fail, [tmp_path / "marker"]))
    assert str(error.value) == "task marker"
    assert "in fail" in error.value.__notes__[0]  # the worker's traceback
    assert (tmp_path / "marker").read_text() == "tried\n"


def test_a_result_that_cannot_be_sent_is_an_error_here(pool):
    with pytest.raises(TypeError, match=r"cannot pickle '_thread\.lock' object"):
        list(pool.map(lock, [1]))


def test_a_killed_worker_is_named_and_its_task_done_again(pool, tmp_path, capsys):
    drawn = next_in_thread(pool.map(held, [(tmp_path, number) for number in range(4)]))
    wait_until(lambda: len(pids(tmp_path)) == 2)
    os.kill(pids(tmp_path)[0], signal.SIGKILL)
    wait_until(lambda: len(pids(tmp_path)) == 3)
    (tmp_path / "go").touch()
    assert sorted(number for number, _ in drawn()) == [0, 1, 2, 3]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("a Ray worker on ")
    assert line.endswith("; another one takes its place")


def test_a_task_that_loses_every_worker_is_an_error(pool, tmp_path):
    with pytest.raises(WorkerError, match=r"^a Ray worker on .* was lost \(.*\), the 3rd one \(out of memory\?\)$"):
        list(pool.map(die, [tmp_path]))
    assert len(list(tmp_path.glob("*.pid"))) == 3


def test_workers_end_with_the_map(pool, tmp_path):
    results = pool.map(held, [(tmp_path, 0), (tmp_path, 1)])
    with contextlib.closing(results):
        (tmp_path / "go").touch()
        next(results)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids(tmp_path)))


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        (
            "127.0.0.1:1",
            "Ray at 127.0.0.1:1: .*Connection refused; start it with ray start --head, or check the address",
        ),
        ("ray://127.0.0.1:10001", "expected HOST:PORT of a running cluster, or auto"),
        ("http://127.0.0.1:8265", "expected HOST:PORT of a running cluster, or auto"),
        ("nonsense", "expected HOST:PORT of a running cluster, or auto"),
    ],
)
def test_an_address_where_no_cluster_answers_is_reported(address, problem):
    with pytest.raises(WorkerError, match=problem):
        list(unordered_map(double, [1], executor="ray", workers=1, ray_address=address))


def test_at_last_a_lost_machine_costs_nothing_but_time(pool, cluster, tmp_path, capsys):
    """Its raylet and its worker are killed; the other machine has one CPU, and does all tasks."""
    drawn = next_in_thread(pool.map(held, [(tmp_path, number) for number in range(6)]))
    wait_until(lambda: len(pids(tmp_path)) == 2)
    (worker,) = [pid for pid in pids(tmp_path) if parent_of(pid) == cluster.second_raylet]
    os.kill(cluster.second_raylet, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    (tmp_path / "go").touch()
    assert sorted(number for number, _ in drawn()) == list(range(6))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("; another one takes its place")


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
