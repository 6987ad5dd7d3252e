#!/usr/bin/env python3
"""CPU time of realistic degradation relative to fast bicubic degradation, for one view.

    python tools/degradation_cost.py [--images 128] [--rounds 40] [--threads 1]

Both are timed alternately, so that a busy machine slows both down; the smallest CPU time of the rounds, of all threads, counts.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.degradation.parameters import parameters
from pipeline.degradation.presets import PRESETS
from pipeline.degradation.realistic import degrade_as
from pipeline.degradation.settings import Preset
from pipeline.load.degrade import degrade_into
from pipeline.philox import degradation_numbers
from tools.arguments import positive

SIDE_PX = 128
VIEWS = ((8, 32), (16, 16), (8, 8))  # smallest and largest size, px


def main(images: int, rounds: int, threads: int) -> None:
    """Prints a line for each view and preset."""
    torch.set_num_threads(threads)
    crops = torch.randint(0, 256, (images, SIDE_PX, SIDE_PX, 3), dtype=torch.uint8)
    out, flips = torch.empty_like(crops), np.arange(images) % 2 == 0
    for low, high in VIEWS:
        sizes = np.random.default_rng(0).integers(low, high + 1, images)
        calls: dict[str, Callable[[], None]] = {"fast bicubic": functools.partial(fast, out, crops, sizes, flips)}
        for name, preset in PRESETS.items():
            span = range(low, high + 1)
            calls[name] = functools.partial(real, out, crops, preset, sizes, flips, span)
        best = dict.fromkeys(calls, np.inf)
        for _ in range(rounds + 1):
            for name, call in calls.items():
                start = time.process_time()
                call()
                if threads > 1:
                    time.sleep(0.01)  # threads that wait for work spin for a while, which is a cost of this call
                best[name] = min(best[name], (time.process_time() - start) / images * 1e6)
        view = f"{low}-{high}" if low < high else str(low)
        for name, cost in best.items():
            print(f"{view:>5} px  {name:<14} {cost:6.1f} us an image  {cost / best['fast bicubic']:.2f} x")


def fast(out: torch.Tensor, crops: torch.Tensor, sizes: np.ndarray, flips: np.ndarray) -> None:
    """Degrades the images of each size together, as the loader does."""
    for size in np.unique(sizes).tolist():
        indices = np.flatnonzero(sizes == size)
        where = torch.from_numpy(indices)
        group = crops.index_select(0, where) if len(indices) < len(sizes) else crops
        to = group if group is not crops else out
        degrade_into(to, group, size=size, flips=torch.from_numpy(flips[indices]), mode="fast")
        if to is not out:
            out.index_copy_(0, where, group)


def real(
    out: torch.Tensor, crops: torch.Tensor, preset: Preset, sizes: np.ndarray, flips: np.ndarray, span: range
) -> None:
    """Draws the parameters and degrades all images together, as the loader does."""
    drawn = parameters(preset, degradation_numbers(0, 0, slice(0, len(crops)), 0), sizes, flips)
    values = {name: torch.from_numpy(value) for name, value in drawn.items()}
    degrade_as(out, crops, preset, values, sizes=span)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=positive, default=128)
    parser.add_argument("--rounds", type=positive, default=40)
    parser.add_argument("--threads", type=positive, default=1)
    main(**vars(parser.parse_args()))
