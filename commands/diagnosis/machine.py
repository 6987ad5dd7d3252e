"""The machine: processors, memory, limits, disks and file systems."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from commands.diagnosis.findings import Finding, note, ok, warn
from shards.locks import sync_folder

MIN_FREE_BYTES = 5_000_000_000  # a run's checkpoints, or a small shard set
MIN_FREE_INODES = 100_000
MIN_OPEN_FILES = 1024
MIN_SHARED_BYTES = 1 << 30
MIN_MEMORY_BYTES = 4_000_000_000
_GB = 1e9
_CONTROL_GROUP = Path("/sys/fs/cgroup")


def machine_findings() -> Iterator[Finding]:
    """Processors, memory, open files and shared memory."""
    usable, present, quota = len(os.sched_getaffinity(0)), os.cpu_count() or 1, _cpu_quota()
    limit = f", limited to {quota:g} by its control group" if quota and quota < usable else ""
    yield ok(f"{usable} of {present} cores usable{limit}")
    if limit and quota:
        yield note("--workers defaults to the usable cores, not to the limit", f"--workers {max(int(quota), 1)}")
    memory = _memory()
    if memory and memory < MIN_MEMORY_BYTES:
        yield warn(
            f"memory: {memory / _GB:.1f} GB available", "end other programs, or lower --workers and --batch-size"
        )
    elif memory:
        yield ok(f"memory: {memory / _GB:.1f} GB available")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES:
        yield warn(f"at most {soft:,} open files", f"ulimit -n {'unlimited' if hard == -1 else min(hard, 65536)}")
    else:
        yield ok(f"at most {'any number of' if soft == resource.RLIM_INFINITY else format(soft, ',')} open files")
    yield from _shared_memory()


def _cpu_quota() -> float | None:
    """Cores that the control group allows; None if it sets no limit."""
    try:
        quota, period = (_CONTROL_GROUP / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _memory() -> int | None:
    """Bytes that are available, by the system or by the limit of the control group."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    with contextlib.suppress(OSError, ValueError):
        limit, used = (int((_CONTROL_GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        facts = dict(line.split() for line in (_CONTROL_GROUP / "memory.stat").read_text().splitlines())
        found.append(limit - used + int(facts.get("inactive_file", 0)))  # the page cache gives way to programs
    return min(found, default=None)


def _shared_memory() -> Iterator[Finding]:
    shared = Path("/dev/shm")
    if not shared.is_dir():
        return
    usage = shutil.disk_usage(shared)
    if usage.free < MIN_SHARED_BYTES:
        yield note(
            f"shared memory: {usage.free / _GB:.2f} GB free of {usage.total / _GB:.2f} GB; NCCL on several GPUs may need more",
            "in a container: docker run --shm-size 8g",
        )
    else:
        yield ok(f"shared memory: {usage.free / _GB:.1f} GB free")


def disk_findings(folder: Path) -> Iterator[Finding]:
    """Space, locks, syncing and case of the file system of a folder, without writing there."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if existing != folder:
        yield note(f"{folder} does not exist yet; its file system is that of {existing}")
    kind = _file_system(existing)
    usage, inodes = shutil.disk_usage(existing), os.statvfs(existing)
    free = f"{existing} ({kind}): {usage.free / _GB:,.1f} GB free of {usage.total / _GB:,.1f} GB"
    if usage.free < MIN_FREE_BYTES:
        yield warn(
            free, "free space, or choose another disk with LRFR_DATA or --out; VGGFace2's shards take about 25 GB"
        )
    elif inodes.f_files and inodes.f_favail < MIN_FREE_INODES:
        yield warn(f"{free}, {inodes.f_favail:,} inodes free", "delete small files, or choose another disk")
    else:
        yield ok(free)
    if not os.access(existing, os.W_OK):
        yield note(f"{existing} cannot be written: reading works", "set LRFR_DATA, or give --out, to write elsewhere")
    yield from _properties(existing, kind)


def _properties(folder: Path, kind: str) -> Iterator[Finding]:
    lacks = []
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        yield note(f"{folder}: another process works here")
    except OSError as error:
        lacks.append(f"no file locks ({error.strerror})")
    finally:
        os.close(handle)
    if not sync_folder(folder):
        lacks.append("folders that cannot be synced")
    if lacks:
        yield warn(
            f"{folder} ({kind}): {' and '.join(lacks)}",
            "start one command at a time here; a power failure may undo the last renames",
        )
    if _ignores_case(folder):
        yield note(f"{folder}: its file system ignores the case of names", "")
    if not lacks:
        yield ok("file locks, and syncing of folders")


def _ignores_case(folder: Path) -> bool:
    """True if an entry is found under its name in the other case, too."""
    with os.scandir(folder) as entries:
        for entry in entries:
            other = folder / entry.name.swapcase()
            if other.name != entry.name:
                return other.exists() and os.path.samefile(entry.path, other)
    return False


def _file_system(folder: Path) -> str:
    """The type of the file system that holds a folder, such as ``ext4``."""
    best, kind, target = "", "file system of unknown type", os.path.realpath(folder)
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return kind
    for line in mounts:
        fields = line.split()
        point = fields[4].encode().decode("unicode_escape")
        if (target == point or target.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, fields[fields.index("-") + 1]
    return kind
