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
    """An actor. Its process does one task after another, in the working directory of the driver.

    Its methods return a value, and the exception that was raised in place of one.
    """

    def __init__(self, folder: str) -> None:
        with contextlib.suppress(OSError):  # not there on this machine: absolute paths work nevertheless
            os.chdir(folder)

    def host(self) -> tuple[str, None]:
        return socket.gethostname(), None

    def run(self, function: Callable[[Any], Any], task: Any) -> tuple[Any, Exception | None]:
        try:
            return function(task), None
        except Exception as error:  # noqa: BLE001 -- raised again by RayPool.map
            error.add_note(traceback.format_exc())
            return None, error


class RayPool:
    """Context manager: a connection to a Ray cluster, on which ``map`` runs an actor for each worker.

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
        self._ray: Any = None

    def __enter__(self) -> RayPool:
        with contextlib.ExitStack() as stack:
            self._ray = stack.enter_context(imported(self._address))
            address = self._address or stack.enter_context(local_cluster(self._count or len(os.sched_getaffinity(0))))
            stack.enter_context(_connected(self._ray, address))
            self._count = self._count or max(int(self._ray.cluster_resources().get("CPU", 0)), 1)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Generator[Result, None, None]:
        """Yields ``function(task)`` for every task, in any order; the first error of a task is raised here.

        The actors end with the map, or with this process.

        Args:
            function: importable by name on every machine.

        Raises:
            WorkerError: workers were lost again and again.
        """
        running = _Map(self._ray, function, tasks)
        try:
            for _ in range(self._count or 0):
                running.start()
            yield from running.results()
        finally:
            running.end()


class _Map:
    """The actors of one ``RayPool.map``, and the tasks that they have."""

    def __init__(self, ray: Any, function: Callable[[Any], Any], tasks: Iterable[Any]) -> None:
        self._ray, self._function = ray, function
        self._new, self._again = map(_Job, tasks), deque[_Job]()
        self._actor_class = ray.remote(num_cpus=1, max_restarts=0)(_Worker)
        self._hosts: dict[Any, str] = {}  # by actor; "" until it has started
        self._requests: dict[Any, tuple[Any, _Job | None]] = {}  # answer -> actor and its job; None: its start
        self._failed_starts = 0  # actors in a row that were lost before they had started

    @property
    def _working(self) -> bool:
        return any(job for _, job in self._requests.values())

    def start(self) -> None:
        """Starts an actor, which gets tasks as soon as it answers."""
        actor = self._actor_class.remote(os.getcwd())
        self._hosts[actor] = ""
        self._requests[actor.host.remote()] = actor, None

    def results(self) -> Iterator[Any]:
        """Yields the results of all tasks.

        Raises:
            WorkerError: too many actors were lost.
        """
        more, waiting = True, _Waiting(self._ray)
        while more or self._again or self._working:
            for answer in self._ray.wait(list(self._requests), timeout=POLL_S)[0]:
                actor, job = self._requests.pop(answer)
                try:
                    result, error = self._ray.get(answer)
                except self._ray.exceptions.RayTaskError as unsent:  # of pickling, as others are answers
                    raise unsent.cause or unsent from None
                except self._ray.exceptions.RayError as lost:
                    self._replace(actor, job, lost)
                    continue
                if error:
                    raise error
                self._failed_starts = 0
                if job is None:
                    self._hosts[actor] = result
                more = self._give(actor) and more
                if job:
                    yield result
            waiting.report(self._working)

    def _give(self, actor: Any) -> bool:
        """Gives an actor its next task; ends it and returns False if none is left."""
        job = self._again.popleft() if self._again else next(self._new, None)
        if job is None:
            del self._hosts[actor]
            self._ray.kill(actor)
            return False
        self._requests[actor.run.remote(self._function, job.task)] = actor, job
        return True

    def _replace(self, actor: Any, job: _Job | None, error: Exception) -> None:
        """Starts an actor in place of one that is gone, whose job is done again.

        Raises:
            WorkerError: too many were lost.
        """
        with contextlib.suppress(Exception):  # it may only be out of reach
            self._ray.kill(actor)
        host = self._hosts.pop(actor)
        if job is None:
            self._failed_starts += 1
            if self._failed_starts >= MAX_LOSSES:
                raise WorkerError(f"workers do not start on the Ray cluster: {_last_line(error)}")
        else:
            job.losses += 1
            line = f"a Ray worker on {host} was lost ({str(job.task)[:80]})"
            if job.losses >= MAX_LOSSES:
                raise WorkerError(f"{line}, the {job.losses}rd one (out of memory?)")
            print_stderr(f"{line}; another one takes its place")
            self._again.append(job)
        self.start()

    def end(self) -> None:
        """Kills the actors, and waits until their requests have failed, so that none of them writes any more."""
        while self._hosts:
            with contextlib.suppress(Exception):  # the cluster may be gone
                self._ray.kill(self._hosts.popitem()[0])
        if self._requests:
            with contextlib.suppress(Exception):
                self._ray.wait(list(self._requests), num_returns=len(self._requests), timeout=GONE_S)


class _Waiting:
    """Reports once that no worker has started for a while."""

    def __init__(self, ray: Any) -> None:
        self._ray, self._since = ray, time.monotonic()

    def report(self, working: bool) -> None:
        if working:
            self._since = float("inf")
        elif time.monotonic() - self._since > WAITING_S:
            self._since = float("inf")
            cpus = self._ray.cluster_resources().get("CPU", 0)
            print_stderr(f"waiting for a free CPU of the Ray cluster, which has {cpus:.0f}")


@contextlib.contextmanager
def imported(address: str | None) -> Iterator[Any]:
    """Imports Ray, and gives it an environment of its own: without usage statistics and messages.

    Raises:
        WorkerError: it is not installed.
    """
    # dashboards show what workers report of tasks; the reports of this process would delay its end by 0.3 s
    variables = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_task_events_report_interval_ms": "0"}
    if address is None:  # its processes take orders from this one only
        variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    added = variables.keys() - os.environ.keys()
    os.environ.update({name: variables[name] for name in added})
    ray = None
    try:
        try:
            ray = importlib.import_module("ray")
        except ModuleNotFoundError:
            remedy = install_command("ray")
            raise WorkerError(f"--executor ray: Ray is not installed; run: {remedy}") from None
        _read_environment(ray)
        yield ray
    finally:
        for name in added:  # programs that are started later may use another cluster
            os.environ.pop(name, None)
        if ray:
            _read_environment(ray)


def _read_environment(ray: Any) -> None:
    """Lets Ray read its environment again, as it does when it is imported."""
    if not ray.is_initialized():
        ray._raylet.Config.initialize("")
        ray._raylet.AuthenticationTokenLoader.instance().reset_cache()


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
