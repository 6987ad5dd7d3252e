"""Interrupts builds and trainings at their file operations, and flips bits of shard sets; nothing may be lost.

build, train: a run on generated faces is the reference. Then the same command is killed or fails at an operation on a
file, in a new process for each fault. Files with final names must then be as in the reference, and the same command, run
again, must end with the bytes of the reference. A failure must be reported in one line.

flips: after a random bit of a file is flipped, verify --full must name the file.

Prints a table. Exits with 1 if a fault was not survived; each such fault is a line on stderr.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this is a script of the repository, not a package

from benchmarks.report.document import Grid, as_text
from pipeline.build import build, options_for
from pipeline.demo.generate import write_demo_data
from pipeline.progress import Progress
from pipeline.spec import Preprocessing
from tools.file_faults import FAULTS, LOGS, NEED_SPACE, TEMPORARY, UNCOUNTED, Ended, in_process, run

IDENTITIES, IMAGES, IMAGES_PER_SHARD = 6, 4, 9  # three shards
BUILDING = f"--images-per-shard {IMAGES_PER_SHARD} --executor serial"
TRAINING = "--backbone spherenet4 --batch-size 4 --views 32,8 --steps 6 --save-every 2 --log-every 1 --keep 2 --lr 0.01"
KINDS_OF_FILE = [
    "*.tar",
    "*.idx",
    "shard-*.parquet",
    "*.done.json",
    "index.parquet",
    "plan.json",
    "manifest.json",
    "README.md",
]
SPEEDS = ("images_per_s", "loader_wait")  # in the rows of a log


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault: its row and column in the table, and where it hits."""

    row: str
    kind: str
    at: int  # number of the operation, or of the bit
    file: Path | None = None  # with the bit


class Interrupted:
    """A command that is interrupted and run again.

    Args:
        out: the folder that ``words`` tell it to write.
    """

    def __init__(self, words: list[str], out: Path) -> None:
        self._words, self._out = words, out
        self._whole = self._start_over()
        if self._whole.code:
            sys.exit(f"without a fault: {self._whole.printed[-1]}")
        self._expected = self._contents()

    def faults(self, most: int, rng: random.Random) -> Iterator[Fault]:
        """At most ``most`` faults of each kind, at operations of each kind."""
        operations = self._whole.operations
        for operation in sorted(set(operations)):
            places = [number for number, each in enumerate(operations) if each == operation]
            for kind in FAULTS:
                if kind != "ENOSPC" or operation in NEED_SPACE:
                    for at in sorted(rng.sample(places, min(most, len(places)))):
                        yield Fault(f"{self._words[0]}: {operation}", kind, at)

    def inject(self, fault: Fault) -> str:
        """Injects a fault and runs the command again; returns what was not as it should be."""
        ended = self._start_over(fault.kind, fault.at)
        if fault.kind in ("kill", "power"):
            problem = "" if ended.code == -signal.SIGKILL else f"exit code {ended.code}, not killed"
        else:
            problem = self._dishonest(ended)
        if problem := problem or self._half_written():
            return problem
        again = run(self._words, self._out)
        if again.code:
            return f"the same command exits with {again.code}: {again.printed[-1]}"
        found = self._contents()
        wrong = [name for name in {**self._expected, **found} if self._expected.get(name) != found.get(name)]
        return f"after the same command: {', '.join(wrong)} differs" if wrong else ""

    def _start_over(self, fault: str = "", at: int = -1) -> Ended:
        shutil.rmtree(self._out, ignore_errors=True)
        return run(self._words, self._out, fault, at)

    def _dishonest(self, ended: Ended) -> str:
        """An error is one line and leaves no temporary file; a success is one."""
        if ended.code == 0:
            return "" if self._contents() == self._expected else "exit code 0, but something is lost"
        traceback = any(line.startswith("Traceback") for line in ended.printed)
        if ended.code != 1 or traceback or not ended.printed[-1].startswith("Error: "):
            return f"exit code {ended.code}{', a traceback' * traceback}: {ended.printed[-1]}"
        return ", ".join(f"{path.name} is left" for path in self._files() if path.suffix == TEMPORARY)

    def _half_written(self) -> str:
        for path in self._files():
            name = str(path.relative_to(self._out))
            if path.suffix not in (TEMPORARY, *LOGS) and _digest(path) not in self._whole.published.get(name, []):
                return f"{name} has its final name and is not as it was published"
        return ""

    def _contents(self) -> dict[str, Any]:
        """Digests by name; of logs the rows, without speeds; of checkpoints only the newest."""
        found: dict[str, Any] = {}
        for path in self._files():
            if path.suffix in LOGS:
                rows = [json.loads(line) for line in path.read_text().splitlines()]
                found[path.name] = [{key: row[key] for key in row if key not in SPEEDS} for row in rows]
            elif path.suffix == ".pt":
                found["newest checkpoint"] = _plain(torch.load(path, weights_only=True))
            else:
                found[path.name] = _digest(path)
        return found

    def _files(self) -> list[Path]:
        return [path for path in sorted(self._out.rglob("*")) if path.is_file() and UNCOUNTED not in str(path)]


class Flipped:
    """A shard set of which a bit is flipped."""

    def __init__(self, shards: Path) -> None:
        self._shards = shards

    def faults(self, most: int, rng: random.Random) -> Iterator[Fault]:
        """``most`` flips for each kind of file."""
        for pattern in KINDS_OF_FILE:
            paths = sorted(self._shards.glob(pattern))
            for _ in range(most):
                path = rng.choice(paths)
                yield Fault(f"flip: {pattern}", "flip", rng.randrange(8 * path.stat().st_size), path)

    def inject(self, fault: Fault) -> str:
        """Flips a bit, verifies, and flips it back; returns what was not as it should be."""
        assert fault.file
        whole = fault.file.read_bytes()
        flipped = bytearray(whole)
        flipped[fault.at // 8] ^= 1 << fault.at % 8
        fault.file.write_bytes(flipped)
        ended = run(["verify", "--full", str(self._shards)], self._shards)
        fault.file.write_bytes(whole)
        named = any(fault.file.name in line for line in ended.printed)
        if ended.code == 1 and named and ended.printed[-1].startswith("Error: "):
            return ""
        return f"{fault.file.name}: exit code {ended.code}, last line: {ended.printed[-1]}"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _plain(value: Any) -> Any:
    """Tensors by their digests; the bytes of equal checkpoints may differ in references between equal strings."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return hashlib.sha256(value.numpy().tobytes()).hexdigest() if isinstance(value, torch.Tensor) else value


def small_set(faces: Path, out: Path) -> None:
    """Builds shards of small images, on which training is fast."""
    options = options_for("vggface2", root=faces, out=out, landmarks=(), template=None, executor="serial")
    build(dataclasses.replace(options, preprocessing=Preprocessing(size=32), images_per_shard=IMAGES_PER_SHARD))


def targets(what: tuple[str, ...], scratch: Path) -> Iterator[Interrupted | Flipped]:
    """Everything that faults are injected into; written into ``scratch``."""
    faces, shards, work = scratch / "VGGFace2", scratch / "shards", scratch / "work"
    in_process(write_demo_data, scratch, identities=IDENTITIES, images=IMAGES, seed=0, layouts=["VGGFace2"])
    in_process(small_set, faces, shards)
    if "build" in what:
        yield Interrupted(["build-shards", "--root", str(faces), "--out", str(work), *BUILDING.split()], work)
    if "train" in what:
        yield Interrupted(["train", "--shards", str(shards), "--out", str(work), *TRAINING.split()], work)
    if "flips" in what:
        yield Flipped(shards)


@click.command(help=__doc__)
@click.argument("what", nargs=-1, type=click.Choice(["build", "train", "flips"]))
@click.option("--faults", "most", default=6, show_default=True, help="Most faults in a cell of the table.")
@click.option("--seed", default=0, show_default=True, help="Chooses the operations and bits.")
def main(what: tuple[str, ...], most: int, seed: int) -> None:
    injected: Counter[tuple[str, str]] = Counter()
    failed: Counter[str] = Counter()
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="lrfr-faults-") as folder:
        for target in targets(what or ("build", "train", "flips"), Path(folder).resolve()):
            chosen = list(target.faults(most, rng))
            with Progress("inject_faults", len(chosen), "faults") as progress:
                for fault in chosen:
                    if problem := target.inject(fault):
                        print(f"{fault.row}, {fault.kind} at {fault.at}: {problem}", file=sys.stderr)
                        failed[fault.row] += 1
                    injected[fault.row, fault.kind] += 1
                    progress.update()
    kinds = [*FAULTS, "flip"]
    rows = [
        [row, *(str(injected[row, kind] or "-") for kind in kinds), str(total - failed[row]), str(failed[row])]
        for row in dict.fromkeys(row for row, _ in injected)
        for total in [sum(injected[row, kind] for kind in kinds)]
    ]
    print(as_text(Grid(caption="Faults injected", header=["", *kinds, "survived", "failed"], rows=rows)))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
