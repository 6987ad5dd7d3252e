"""A Ray cluster of this machine alone, for one build; it leaves nothing behind."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline.executors import WorkerPool
from shards.errors import LockedError
from shards.locks import locked
from shards.process_setting import ProcessSetting

GONE_S = 2.0  # that killed processes are given to end
STORE_BYTES = 256 << 20  # for tasks under way
MAX_FOLDER = 40  # characters: the path of a Unix socket below it has at most 107
_NAME, _NEW_NAME = "lrfr-ray-", "lrfr-new-"
_ACTIVITY = "running a Ray cluster"


@contextlib.contextmanager
def local_cluster(cpus: int) -> Iterator[str]:
    """Starts a cluster of one machine in a worker process, and yields its address; it dies with that process."""
    with _own_folder() as folder, WorkerPool(1) as keeper:
        try:
            (address,) = keeper.map(start_cluster, [(cpus, folder)])
            yield address
        finally:
            _kill_below(keeper.process_ids)


@contextlib.contextmanager
def _own_folder() -> Iterator[str]:
    """A folder for logs and sockets, which the next cluster deletes if this process is killed."""
    parent = tempfile.gettempdir()
    parent = parent if len(parent) <= MAX_FOLDER else "/tmp"
    remove_abandoned(Path(parent))
    made = Path(tempfile.mkdtemp(prefix=_NEW_NAME, dir=parent))
    with locked(made, _ACTIVITY):
        name = made.name.replace(_NEW_NAME, _NAME, 1)
        folder = str(made.rename(made.with_name(name)))  # it was locked before it can be seen
        try:
            yield folder
        finally:
            _removed(folder)


def remove_abandoned(parent: Path) -> None:
    """Deletes the folders of clusters whose build was killed: their locks are free."""
    for folder in parent.glob(f"{_NAME}*"):
        with contextlib.suppress(OSError, LockedError):  # another user's, just deleted, or in use
            if folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.geteuid():
                continue
            with locked(folder, _ACTIVITY, shared=True) as has_locks:
                if has_locks:
                    shutil.rmtree(folder, ignore_errors=True)


def _kill_below(parents: Iterable[int]) -> None:
    """Kills all processes below some: Ray's agents would outlive the others by a minute."""
    parent_of = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            parent_of[int(path.parent.name)] = int(path.read_text().rpartition(") ")[2].split()[1])
    known = set(parents)
    while more := {child for child, parent in parent_of.items() if parent in known} - known:
        known |= more
    for process in known - set(parents):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _removed(folder: str) -> None:
    """Deletes the logs and sockets of processes that are ending."""
    deadline = time.monotonic() + GONE_S
    while os.path.exists(folder) and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)


def start_cluster(cluster: tuple[int, str]) -> str:
    """Starts a cluster of one machine, whose processes die with this one; returns its address."""
    cpus, folder = cluster
    ray = importlib.import_module("ray")
    quiet_ray.__enter__()  # until this process ends, which sees the others killed
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        object_store_memory=STORE_BYTES,
        _temp_dir=folder,
    )
    address: str = ray.get_runtime_context().gcs_address
    return address


def _worker_module() -> Any:
    return importlib.import_module("ray._private.worker")


def _set_output(setting: tuple[int, bool]) -> None:
    level, _worker_module()._worker_logs_enabled = setting  # no public switch
    logging.getLogger("ray").setLevel(level)


quiet_ray = ProcessSetting(
    lambda: (logging.getLogger("ray").level, _worker_module()._worker_logs_enabled),
    lambda: _set_output((logging.CRITICAL, False)),
    _set_output,
)
"""Ray, to which this process is connected, prints no messages, and no page about each lost process on stdout."""
