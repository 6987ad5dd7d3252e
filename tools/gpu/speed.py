"""Timings, by ``benchmarks.speed.gpu``; those that have a target are compared with it."""

from __future__ import annotations

import functools

from benchmarks.speed.gpu import PLAIN, time_decoding, time_degradation, time_loaders, time_training
from benchmarks.speed.timing import Timing, cores
from tools.gpu.parts import Work

# of an H100, see docs/performance.md
LOADER_IMAGES_S, STEP_RATIO, IR50_IMAGES_S = 15_000, 4.0, 5_000
_KINDS = {"cuda": ("fp32", "TF32", "bf16"), "cpu": ("fp32", "bf16")}


def loader(work: Work) -> None:
    """Decoding alone and the loader alone."""
    report = work.report
    counts = sorted({2, 8, cores()} & set(range(cores() + 1)))
    timing = time_loaders(work.setup, work.index, work.device, threads=counts)
    report.time(timing)
    best = max(timing.rows[f"{count} threads"].rate for count in counts)
    report.target("exact, four views", best, least=LOADER_IMAGES_S, text=f"{best:,.0f} images/s of {LOADER_IMAGES_S:,}")
    with report.attempt("decoding"):
        report.time(time_decoding(work.setup, work.index, work.device))
    with report.attempt("degradation"):
        for timing in time_degradation(work.setup, work.device):
            report.time(timing)


def step(work: Work) -> None:
    """SphereNet-20."""
    timing = _trained(work, "spherenet20", _KINDS[work.device])
    rate, plain = timing.rows["step alone, bf16"].rate, timing.rows[f"{PLAIN}fp32"].rate
    text = f"{rate / plain:.2f} x of {STEP_RATIO:.0f} x"
    work.report.target("bf16 against the plain step in fp32", rate / plain, least=STEP_RATIO, text=text)


def ir50(work: Work) -> None:
    """IR-50."""
    timing = _trained(work, "ir50", _KINDS[work.device][1:])
    rate = timing.rows["loader and step, bf16"].rate
    work.report.target(
        "bf16, with the loader", rate, least=IR50_IMAGES_S, text=f"{rate:,.0f} images/s of {IR50_IMAGES_S:,}"
    )


def compiled(work: Work) -> None:
    """``torch.compile``, which may fail where the rest does not."""
    _trained(work, "spherenet20", ("bf16", "bf16, compiled"))


def _trained(work: Work, backbone: str, kinds: tuple[str, ...]) -> Timing:
    """With the loader; where that does not work, the steps alone."""
    time_them = functools.partial(
        time_training, work.setup, work.index, "spherenet4" if work.quick else backbone, work.device, kinds
    )
    timing = None
    with work.report.attempt("with the loader"):
        timing = time_them()
    timing = timing or time_them(loaded=False)
    work.report.time(timing)
    return timing
