"""The machine, its libraries, the data of the other parts, and the tests that need a GPU."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.speed.timing import cores
from tools.gpu.parts import SHARDS, Work
from tools.gpu.report import FAILED, NO_GPU

REPOSITORY = Path(__file__).resolve().parents[2]
_SIDE = {"cuda": 8192, "cpu": 512}  # of the matrices that are multiplied
_COPIED = {"cuda": 1 << 32, "cpu": 1 << 24}  # bytes


def machine(work: Work) -> None:
    """What is there, and how fast it is at best."""
    report = work.report
    report.write(
        "Python",
        f"{platform.python_version()}, torch {torch.__version__} for CUDA {torch.version.cuda}, {cores()} cores",
    )
    if work.device == "cuda" and not torch.cuda.is_available():
        report.write(NO_GPU, "none; nvidia-smi shows the driver, --device cpu tries the script", FAILED)
        sys.exit("nothing else can be found out")
    if work.device == "cuda":
        facts = torch.cuda.get_device_properties(0)
        report.write(
            "GPU", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, {facts.multi_processor_count} SMs, {_driver()}"
        )
    with report.attempt("product of bf16 matrices"):
        left, right = (torch.randn(_SIDE[work.device], _SIDE[work.device], device=work.device).bfloat16() for _ in "ab")
        rate = 2 * _SIDE[work.device] ** 3 / _seconds(lambda: left @ right, work.device)
        report.write("product of bf16 matrices", f"{rate / 1e12:,.3g} TFLOP/s")
    with report.attempt("copy in memory"):
        block = torch.empty(_COPIED[work.device], dtype=torch.uint8, device=work.device).random_()
        to = torch.empty_like(block)
        rate = 2 * block.numel() / _seconds(lambda: to.copy_(block), work.device)
        report.write("copy in memory", f"{rate / 1e9:,.0f} GB/s read and written")
    with report.attempt("doctor"):
        _doctor(work)


def _driver() -> str:
    found = shutil.which("nvidia-smi")
    if not found:
        return "driver unknown"
    words = [found, "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(words, capture_output=True, text=True).stdout.split()  # a line for each GPU
    return f"driver {lines[0] if lines else 'unknown'}"


def _seconds(call: Callable[[], object], device: str) -> float:
    """Of one call, the mean of ten."""
    from benchmarks.speed.step import synchronize

    for _ in range(3):
        call()
    synchronize(device)
    start = time.perf_counter()
    for _ in range(10):
        call()
    synchronize(device)
    return (time.perf_counter() - start) / 10


def _doctor(work: Work) -> None:
    """What ``doctor`` says of the libraries; on an empty folder."""
    folder, found = work.scratch / "nothing", work.scratch / "doctor.json"
    folder.mkdir()
    command = [sys.executable, "cli.py", "doctor", str(folder), "--json", str(found)]
    subprocess.run(command, cwd=REPOSITORY, stdout=sys.stderr, stdin=subprocess.DEVNULL, check=False)
    findings = [one for section in json.loads(found.read_text()) for one in section["findings"]]
    for finding in findings:
        if finding["level"] in ("FAIL", "warn"):
            work.report.write(f"doctor: {finding['level']}", finding["text"])
    for place in ("CPU", *(["GPU"] if work.device == "cuda" else [])):
        decodes = any(one["level"] == "ok" and one["text"].endswith(f"a JPEG on the {place}") for one in findings)
        work.report.check(f"doctor: DALI decodes on the {place}", decodes, "yes" if decodes else "see log.txt")


def data(work: Work) -> None:
    """Faces, and a shard set of them."""
    from benchmarks.speed.faces import build_excerpt

    start = time.perf_counter()
    index = build_excerpt(work.setup, (work.scratch / SHARDS).parent, cores())
    assert index.root == work.scratch / SHARDS
    faces = f"{len(index):,} images of {len(index.labels):,} people, {index.size.mean():,.0f} bytes each"
    work.report.write("shard set", f"{faces}, in {time.perf_counter() - start:.0f} s with what they are made of")


def marked_tests(work: Work) -> None:
    """``pytest -m gpu``, of the files that have such tests: others may need libraries that are not there."""
    files = [
        str(path) for path in sorted(REPOSITORY.glob("tests/**/test_*.py")) if "pytest.mark.gpu" in path.read_text()
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", *files]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    print(done.stdout, done.stderr, file=sys.stderr)
    lines = [line for line in done.stdout.splitlines() if " in " in line] or done.stderr.splitlines()
    work.report.check("pytest -m gpu", done.returncode == 0, lines[-1] if lines else f"exit code {done.returncode}")
