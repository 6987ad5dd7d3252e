#!/usr/bin/env python3
"""Runs every check and timing of a GPU, and prints a table of them.

    python tools/gpu_check.py --out gpu-check                    # on a machine with a GPU: under 10 minutes
    python tools/gpu_check.py --out check --device cpu --quick   # try the script on a CPU, some minutes on 2 cores

Each part runs in a separate process with a time limit: correctness first, then speed. A part that fails, hangs or is killed
is a row of the table with its reason, and the next one starts. Parts for which --budget leaves no time are listed. The folder
--out gets results.jsonl (each result as soon as it is known), log.txt (the output of the parts) and table.txt.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from tools.gpu.parts import PARTS, Settings  # noqa: E402 (needs the path)
from tools.gpu.report import FAILED, LEFT_OUT, NO_GPU, OK, Report, last_line, read_rows, shortened, table_of  # noqa: E402

_MIN_PART_S = 15.0  # a part that has less is left out
_PATIENCE_S = 5.0  # of a process that is asked to end
_CPU_LIMIT = 5  # times as long on a CPU


def check(names: Sequence[str], settings: Settings, log: Path) -> None:
    """Runs the parts one after another; prints a line for each."""
    for name in names:
        part, report = PARTS[name], Report(Path(settings.results), name)
        left = settings.deadline - time.time()
        if part.gpu and settings.device == "cpu":
            report.write("whole part", "needs a GPU", LEFT_OUT)
        elif any(row.name == NO_GPU for row in read_rows(report.path)):
            report.write("whole part", "there is no GPU, see machine", LEFT_OUT)
        elif name == "networks" and not settings.networks_s:
            report.write("whole part", "--networks-seconds is 0", LEFT_OUT)
        elif left < _MIN_PART_S:
            report.write("whole part", f"{max(left, 0):.0f} s of the budget are left", LEFT_OUT)
        else:
            limit: float = part.seconds * (_CPU_LIMIT if settings.device == "cpu" else 1)
            limit += {"train": settings.train_s, "networks": 2 * settings.networks_s}.get(name, 0)
            run_part(name, settings, log, min(limit, left), report)
        for row in [row for row in read_rows(report.path) if row.part == name][-1:]:
            print(f"{name}: {row.verdict or OK}, {shortened(row.value)}", flush=True)


def run_part(name: str, settings: Settings, log: Path, limit: float, report: Report) -> None:
    """Runs one part, for ``limit`` seconds at most; ends what it started; writes its last row."""
    command = [sys.executable, "-m", "tools.gpu.parts", name, json.dumps(dataclasses.asdict(settings))]
    with open(log, "ab") as stream:
        stream.write(f"\n===== {name}\n".encode())
        stream.flush()
        start = log.stat().st_size
        began = time.monotonic()
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_group(process)
    seconds = time.monotonic() - began
    if code is None and time.time() >= settings.deadline:  # its own limit has not been reached
        report.write("whole part", f"the budget ended after {seconds:.0f} s of it", LEFT_OUT, seconds=seconds)
        return
    if code == 0:
        report.write("whole part", f"{seconds:.1f} s", OK, seconds=seconds)
        return
    with open(log, "rb") as stream:
        stream.seek(start)
        said = last_line(stream.read().decode(errors="replace"))
    reason = f"not done after {limit:.0f} s" if code is None else f"killed by signal {-code}" if code < 0 else ""
    report.write("whole part", ": ".join(filter(None, [reason, said])), FAILED, seconds=seconds)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and those that it started: asks, then kills."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        if number == signal.SIGTERM and process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE_S)
    process.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 1 if a check failed; a missed target is no failure."""
    options = parsed(arguments)
    results, log = options.out / "results.jsonl", options.out / "log.txt"
    if results.exists():
        print(f"{results} exists: name another --out", file=sys.stderr)
        return 2
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        log.touch()
    except OSError as error:
        print(f"{options.out}: {error.strerror}: name another --out", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    code = 0
    with tempfile.TemporaryDirectory(prefix="lrfr-gpu-") as scratch:
        settings = Settings(
            device=options.device,
            quick=options.quick,
            root=str(options.root.resolve()) if options.root else "",
            scratch=scratch,
            results=str(results.resolve()),
            train_s=options.train_seconds or (3.0 if options.quick else 60.0),
            networks_s=options.networks_seconds,
            deadline=time.time() + options.budget,
        )
        try:
            check(options.parts, settings, log)
        except KeyboardInterrupt:
            code = 130
    rows = read_rows(results)
    table = table_of(rows)
    (options.out / "table.txt").write_text(table + "\n")
    print(f"\n{table}", flush=True)
    return code or int(any(row.verdict == FAILED for row in rows))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--quick", action="store_true", help="little work: only the checks are meaningful, not the times"
    )
    parser.add_argument("--budget", type=float, default=570.0, help="seconds for everything (default: %(default)s)")
    parser.add_argument("--root", type=Path, help="folder with VGGFace2 and LFW in it (default: faces are generated)")
    parser.add_argument("--parts", type=part_names, default=list(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--train-seconds", type=float, help="of the training that is extrapolated (default: 60)")
    parser.add_argument(
        "--networks-seconds",
        type=float,
        default=0.0,
        help="train a Siamese network and one at full size only for so long each, and score both (default: do not)",
    )
    return parser.parse_args(arguments)


def part_names(text: str) -> list[str]:
    """``step,train`` -> the names, in their order here, with the data that they need."""
    names = {name.strip() for name in text.split(",")}
    if unknown := names - set(PARTS):
        raise argparse.ArgumentTypeError(f"{sorted(unknown)[0]!r} is unknown; choose from {', '.join(PARTS)}")
    needed = names if names <= {"machine", "degrade", "tests"} else names | {"data"}
    return [name for name in PARTS if name in needed]


if __name__ == "__main__":
    sys.exit(main())
