#!/usr/bin/env python3
"""Time and CPU time of ``build-shards`` with worker processes, on a Ray cluster of its own, and on a running Ray cluster.

    python tools/executor_cost.py [--root /faces] [--images 20000] [--size 160 160] [--workers 2] [--rounds 5]

The three are timed alternately, in fresh processes. "Start" is the time to start and end the same workers without work; the
rest is the time of the images. CPU time is that of all processes of a build, sampled every 50 ms: on a busy machine it means
more than the clock. Ray's daemons have a column of their own; their CPU time grows with the duration of the build.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.report.document import Grid, as_text
from benchmarks.speed.faces import Setup, read_faces, resized, write_tree
from pipeline.build import build, options_for
from pipeline.executors import unordered_map
from pipeline.ray_local import local_cluster
from pipeline.ray_pool import imported
from shards.errors import LrfrError
from tools.arguments import positive
from tools.costs import in_fresh_process

FACES = 512  # distinct ones; the other images are links to their files
LOOK_S = 0.05
DAEMON = re.compile(rb"gcs_server|raylet/raylet|monitor\.py|dashboard\.py|Agent")  # in the command line of one of Ray's
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
CONTENDERS = ("process", "ray, a cluster of its own", "ray, a running cluster")


@dataclasses.dataclass
class Cost:
    """Seconds by the clock, of all CPUs without Ray's daemons, and of these."""

    clock: float
    cpu: float
    daemons: float


class CpuMeter:
    """Context manager: the CPU time of all processes below this one. A dead process counts as it was last seen.

    What is below the processes that are there when the block begins, a running cluster, is counted apart.
    """

    def __init__(self) -> None:
        self._ticks: dict[tuple[int, int], tuple[int, bool, bool]] = {}  # (id, beginning) -> ticks, apart, daemon
        self._apart: set[int] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> CpuMeter:
        self._apart = _below({os.getpid()}, _processes())
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def seconds(self, *, apart: bool) -> tuple[float, float]:
        """The CPU time until now, and that of Ray's daemons; with or without what is counted apart."""
        self._look()
        found = [(ticks, daemon) for ticks, is_apart, daemon in list(self._ticks.values()) if apart or not is_apart]
        return sum(ticks for ticks, _ in found) * TICK_S, sum(ticks for ticks, daemon in found if daemon) * TICK_S

    def _watch(self) -> None:
        while not self._end.wait(LOOK_S):
            self._look()

    def _look(self) -> None:
        processes = _processes()
        apart = _below(self._apart, processes) | self._apart
        for pid in (_below({os.getpid()}, processes) | apart) & set(processes):
            utime, stime, began = (int(processes[pid][place]) for place in (11, 12, 19))  # proc(5)
            with contextlib.suppress(OSError):  # it has just ended
                daemon = DAEMON.search(Path(f"/proc/{pid}/cmdline").read_bytes()) is not None  # a zombie has no words
                _, _, was = self._ticks.get((pid, began), (0, False, False))
                self._ticks[pid, began] = utime + stime, pid in apart, daemon or was


def _processes() -> dict[int, list[str]]:
    """The fields of ``/proc/ID/stat`` behind the name, by id."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            found[int(path.parent.name)] = path.read_text().rpartition(") ")[2].split()
    return found


def _below(parents: set[int], processes: dict[int, list[str]]) -> set[int]:
    below = set(parents)
    while more := {pid for pid, fields in processes.items() if int(fields[1]) in below} - below:
        below |= more
    return below - parents


def run_build(tree: Path, out: Path, workers: int, executor: Any, address: str | None) -> None:
    """Builds a tree; call it in a fresh process."""
    chosen = {"workers": workers, "executor": executor, "ray_address": address}
    with contextlib.redirect_stderr(io.StringIO()):
        build(options_for("vggface2", root=tree, template=None, out=out, **chosen))


def run_nothing(tree: Path, out: Path, workers: int, executor: Any, address: str | None) -> None:
    """Starts the same workers, each for a task that does nothing."""
    list(unordered_map(abs, range(workers), executor=executor, workers=workers, ray_address=address))


@contextlib.contextmanager
def running_cluster(workers: int) -> Iterator[str]:
    """A cluster of this machine; yields its address."""
    with imported(None), local_cluster(workers) as address:  # its token, which the builds inherit
        yield address


def measure(tree: Path, scratch: Path, workers: int, rounds: int) -> dict[str, list[tuple[Cost, Cost]]]:
    """The costs of building and of starting, for each contender, round by round."""
    found: dict[str, list[tuple[Cost, Cost]]] = {name: [] for name in CONTENDERS}
    with running_cluster(workers) as address, CpuMeter() as meter:

        def cost(run: Any, executor: str, where: str | None) -> Cost:
            before, began = meter.seconds(apart=where is not None), time.perf_counter()
            in_fresh_process(run, tree, scratch / "out", workers, executor, where)
            clock, after = time.perf_counter() - began, meter.seconds(apart=where is not None)
            daemons = after[1] - before[1]
            return Cost(clock, after[0] - before[0] - daemons, daemons)

        for number in range(rounds + 1):
            for name, executor, where in zip(CONTENDERS, ("process", "ray", "ray"), (None, None, address), strict=True):
                both = cost(run_build, executor, where), cost(run_nothing, executor, where)
                shutil.rmtree(scratch / "out")
                if number:  # the first round fills caches
                    found[name].append(both)
                print(f"round {number}: {name}: {both}", file=sys.stderr)
    return found


def table(found: dict[str, list[tuple[Cost, Cost]]], caption: str) -> str:
    """Medians, and ratios to the process pool round by round."""
    rows = []
    for name, costs in found.items():
        row = [name]
        for kind in ("clock", "cpu"):
            whole, start, base = (
                np.array([getattr(one[place], kind) for one in chosen])
                for chosen, place in ((costs, 0), (costs, 1), (found[CONTENDERS[0]], 0))
            )
            base_rest = base - np.array([getattr(one[1], kind) for one in found[CONTENDERS[0]]])
            row += [f"{np.median(values):.2f}" for values in (whole, start, whole - start)]
            row.insert(-2, f"{np.median(whole / base):.2f}")
            row.append(f"{np.median((whole - start) / base_rest):.2f}")
        rows.append([*row, f"{np.median([one[0].daemons for one in costs]):.2f}"])
    columns = ["x", "start, s", "rest, s", "x"]
    return as_text(
        Grid(caption=caption, header=["", "clock, s", *columns, "CPU, s", *columns, "daemons, s"], rows=rows)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder with VGGFace2; faces are generated without it")
    parser.add_argument("--images", type=positive, default=20_000)
    parser.add_argument(
        "--size", type=positive, nargs=2, default=[160, 160], metavar=("WIDTH", "HEIGHT"), help="in pixels"
    )
    parser.add_argument("--workers", type=positive, default=2)
    parser.add_argument("--rounds", type=positive, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lrfr-executors-") as folder:
        scratch = Path(folder)
        setup = Setup(root=options.root, scratch=scratch, rounds=1, quick=True)
        faces = [resized(face, *options.size) for face in read_faces(setup.data_sets(), min(FACES, options.images))]
        tree = write_tree(faces, scratch / "tree", images=options.images, grey=False)
        caption = f"{options.images:,} images of {options.size[0]} x {options.size[1]}"
        print(table(measure(tree, scratch, options.workers, options.rounds), caption))


if __name__ == "__main__":
    try:
        main()
    except LrfrError as error:
        sys.exit(f"Error: {error}")
