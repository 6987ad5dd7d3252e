"""Workers on a Ray cluster, for an unordered map over tasks that fit no single machine."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

from pipeline.executors import WorkerError, starting_workers
from pipeline.ray_local import local_cluster, quiet_ray
from pipeline.signals import SIGNALS
from shards.messages import install_command, print_stderr

Task = TypeVar("Task")
Result = TypeVar("Result")
MAX_LOSSES = 3  # workers that may be lost over one task, or in a row before one has started
POLL_S = 1.0
WAITING_S = 30.0  # without a worker that has started, a line says so
CONNECT_S = 10.0
GONE_S = 2.0  # that killed workers are given to end


@dataclasses.dataclass
class _Job:
    """A task, and how many workers were lost over it."""

    task: Any
    losses: int = 0


class _Worker:
    """An actor. Its process does one task after another, in the working directory of the driver."""

    def __init__(self, folder: str) -> None:
        with contextlib.suppress(OSError):  # not there on this machine: absolute paths work nevertheless
            os.chdir(folder)

    def host(self) -> str:
        return socket.gethostname()

    def run(self, function: Callable[[Any], Any], task: Any) -> tuple[Any, Exception | None]:
        try:
            return function(task), None
        except Exception as error:  # noqa: BLE001 -- raised again by RayPool.map
            error.add_note(traceback.format_exc())
            return None, error


class RayPool:
    """Context manager: actors on a Ray cluster, one for each worker, that end when a map ends or this process dies.

    A worker whose process or machine is lost is replaced, and its task done again elsewhere.
    """

    def __init__(self, workers: int | None, address: str | None) -> None:
        """Does not connect yet.

        Args:
            workers: None for as many as the cluster has CPUs.
            address: of a running cluster, ``HOST:PORT`` or ``auto``. None starts one on this machine, for this pool.
        """
        self._count, self._address = workers, address
        self._stack = contextlib.ExitStack()
        self._hosts: dict[Any, str] = {}  # by actor; "" until it has started
        self._failed_starts = 0  # workers in a row that were lost before they had started
        self._ray: Any = None

    def __enter__(self) -> RayPool:
        with contextlib.ExitStack() as stack:
            self._ray = imported(self._address)
            address = self._address or stack.enter_context(local_cluster(self._count or len(os.sched_getaffinity(0))))
            stack.enter_context(_connected(self._ray, address))
            self._count = self._count or max(int(self._ray.cluster_resources().get("CPU", 0)), 1)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Generator[Result, None, None]:
        """Yields ``function(task)`` for every task, in any order; the first error of a task is raised here.

        Args:
            function: importable by name on every machine.

        Raises:
            WorkerError: workers were lost again and again.
        """
        ray, remaining, again = self._ray, map(_Job, tasks), deque[_Job]()
        requests: dict[Any, tuple[Any, _Job | None]] = {}  # answer -> actor and its job; None: its start
        worker = ray.remote(num_cpus=1, max_restarts=0)(_Worker)

        def start() -> None:
            actor = worker.remote(os.getcwd())
            self._hosts[actor] = ""
            requests[actor.host.remote()] = actor, None

        def give(actor: Any) -> bool:
            """Returns False if no task is left."""
            job = again.popleft() if again else next(remaining, None)
            if job is None:
                del self._hosts[actor]
                ray.kill(actor)
                return False
            requests[actor.run.remote(function, job.task)] = actor, job
            return True

        try:
            for _ in range(self._count or 0):
                start()
            more, waiting = True, _Waiting(ray)
            while more or again or any(job for _, job in requests.values()):
                for answer in ray.wait(list(requests), timeout=POLL_S)[0]:
                    actor, job = requests.pop(answer)
                    try:
                        result = ray.get(answer)
                    except ray.exceptions.RayTaskError as error:  # of pickling, as others are answers
                        raise error.cause or error from None
                    except ray.exceptions.RayError as error:
                        again.extend(self._lost(actor, job, error))
                        start()
                        continue
                    self._failed_starts = 0
                    if job is None:
                        self._hosts[actor] = result
                        more = give(actor) and more
                        continue
                    if result[1]:
                        raise result[1]
                    more = give(actor) and more
                    yield result[0]
                waiting.report(requests)
        finally:
            self._end(list(requests))

    def _lost(self, actor: Any, job: _Job | None, error: Exception) -> list[_Job]:
        """Reports that a worker is gone; returns the jobs to do again.

        Raises:
            WorkerError: too many were.
        """
        with contextlib.suppress(Exception):  # it may only be out of reach
            self._ray.kill(actor)
        host = self._hosts.pop(actor)
        if job is None:
            self._failed_starts += 1
            if self._failed_starts >= MAX_LOSSES:
                raise WorkerError(f"workers do not start on the Ray cluster: {_last_line(error)}")
            return []
        job.losses += 1
        line = f"a Ray worker on {host} was lost ({str(job.task)[:80]})"
        if job.losses >= MAX_LOSSES:
            raise WorkerError(f"{line}, the {job.losses}rd one (out of memory?)")
        print_stderr(f"{line}; another one takes its place")
        return [job]

    def _end(self, answers: list[Any]) -> None:
        """Kills the workers, and waits until their requests have failed, so that none of them writes any more."""
        while self._hosts:
            with contextlib.suppress(Exception):  # the cluster may be gone
                self._ray.kill(self._hosts.popitem()[0])
        if answers:
            with contextlib.suppress(Exception):
                self._ray.wait(answers, num_returns=len(answers), timeout=GONE_S)


class _Waiting:
    """Reports once that no worker has started for a while."""

    def __init__(self, ray: Any) -> None:
        self._ray, self._since = ray, time.monotonic()

    def report(self, requests: dict[Any, tuple[Any, _Job | None]]) -> None:
        if any(job for _, job in requests.values()):
            self._since = float("inf")
        elif time.monotonic() - self._since > WAITING_S:
            self._since = float("inf")
            cpus = self._ray.cluster_resources().get("CPU", 0)
            print_stderr(f"waiting for a free CPU of the Ray cluster, which has {cpus:.0f}")


def imported(address: str | None) -> Any:
    """Imports Ray, without usage statistics and messages.

    Raises:
        WorkerError: it is not installed.
    """
    # dashboards show what workers report of tasks; the reports of this process would delay its end by 0.3 s
    defaults = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_task_events_report_interval_ms": "0"}
    if address is None and "ray" not in sys.modules:  # its processes take orders from this one only
        defaults |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError:
        remedy = install_command("ray")
        raise WorkerError(f"--executor ray: Ray is not installed; run: {remedy}") from None


@contextlib.contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """Connects this process to a cluster. Raises: WorkerError: that is not possible."""
    _check_address(address)
    if ray.is_initialized():  # by the program that calls us
        yield
        return
    with quiet_ray:
        try:
            with starting_workers(), _handlers_kept():
                ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, include_dashboard=False)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise WorkerError(f"Ray at {address}: {_last_line(error)}") from None
        try:
            yield
        finally:
            with _handlers_kept():
                ray.shutdown()


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Undoes what the block does to the handlers of signals: Ray sets its own, and removes that of SIGTERM as it ends."""
    ours = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in ours.items():
                signal.signal(number, handler)


def _check_address(address: str) -> None:
    """Raises: WorkerError: nobody answers there, or it is not an address."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdecimal():
        raise WorkerError(f"--ray-address {address}: expected HOST:PORT of a running cluster, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise WorkerError(f"Ray at {address}: {error}; start it with ray start --head, or check the address") from None


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:200]
