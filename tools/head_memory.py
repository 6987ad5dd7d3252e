#!/usr/bin/env python3
"""Memory of a sharded head in a rank: calculated, and measured in processes that train one on random features.

    python tools/head_memory.py --classes 1000000 --ranks 8 --images 512
    torchrun --standalone --nproc-per-node 2 tools/head_memory.py --measure --classes 100000 --images 64

The first prints a table in Markdown, the second the measured and the calculated memory of each rank. It runs on the CPU: the
measurement is the peak memory of the process, less what it had before the head was built. On a GPU, "between steps" and
"step" are memory of the GPU; "save" (on rank 0 only) and "resume" are memory of the machine for each process, except for the
first and last term.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.training.ranks import Ranks

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.arguments import positive

FLOAT = 4  # bytes: head, loss and their gradients are float32 with every --precision
# at once, for arcface and cross-entropy: counted in measurements with many images, and with many classes
LOGIT_COPIES = 5  # cosines, logits with the margin, exponentials and gradients
GRADIENT_COPIES = 5  # rows of length 1 and their gradient, the gradient of the rows, and its intermediate values
_M_MMAP_THRESHOLD = -3  # of <malloc.h>
BUFFERS = {"sgd": 1, "adamw": 2}
SMALL_CLASSES = 64


def calculate(
    *, classes: int, ranks: int, images: int, optimizer: str = "sgd", sample: float = 1.0, length: int = 512
) -> dict[str, int]:
    """Bytes in the rank with the most classes and work, by phase.

    Args:
        images: of a step: identities of all ranks times views.
        sample: fraction of the classes that take part in a step.
        length: of an embedding.
    """
    rows = -(-classes // ranks)
    drawn = round(rows * sample)
    weights, used = rows * length * FLOAT, drawn * length * FLOAT
    kept = weights * (1 + BUFFERS[optimizer])
    whole = classes * length * FLOAT * (1 + BUFFERS[optimizer])
    picked = used if sample < 1.0 else 0  # copied from the weights
    logits = picked + used + LOGIT_COPIES * images * drawn * FLOAT
    gradients = picked + (GRADIENT_COPIES - 1) * used + weights
    return {
        "between steps": kept,
        "step": kept + max(logits, gradients),
        "save": kept + whole + weights,
        "resume": kept + whole + BUFFERS[optimizer] * weights,
    }


def measure(classes: int, images: int, optimizer: str, sample: float) -> tuple[int, int, dict[str, int]]:
    """Rank, number of ranks, and bytes of this rank by phase, beyond those of a run with few classes. A collective."""
    import torch

    from model.training.ranks import open_ranks

    torch.set_num_threads(1)
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)  # what is freed goes back to the system at once
    with open_ranks("cpu") as ranks, tempfile.TemporaryDirectory() as folder:
        run = Path(str(ranks.broadcast(folder)))
        _phases(ranks, SMALL_CLASSES, images, optimizer, sample, run / "small")  # now all libraries are loaded
        before = _resident_bytes()
        peaks = _phases(ranks, classes, images, optimizer, sample, run / "large")
        ranks.any(False)  # before rank 0 deletes the folder
        return ranks.rank, ranks.size, {phase: peak - before for phase, peak in peaks.items()}


def _phases(ranks: Ranks, classes: int, images: int, optimizer: str, sample: float, run: Path) -> dict[str, int]:
    import torch

    from model.backbones import EMBEDDING_SIZE
    from model.formats.checkpoint import checkpoint_path, read_checkpoint
    from model.training.config import TrainConfig
    from model.training.state import new_run

    head = "arcface" if sample == 1.0 else f"arcface:sample={sample}"
    options = {"shard_head": True, "head": head, "losses": "cross-entropy", "optimizer": optimizer, "views": "112"}
    config = TrainConfig(backbone="mobilefacenet", batch_size=images, **options)
    state = new_run(config, classes=classes, preprocessing={"size": 112}, ranks=ranks)
    share = images // ranks.size
    generator = torch.Generator().manual_seed(ranks.rank)
    for _ in range(2):  # the first makes the optimizer's state
        labels = torch.randint(classes, (share,), generator=generator)
        features = torch.randn(share, EMBEDDING_SIZE, generator=generator).requires_grad_()
        _reset_peak()
        loss, _ = state.learner.loss(features, labels, views=1)
        state.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        peaks = {"step": _peak_bytes()}
    del loss
    state.optimizer.zero_grad()
    peaks["between steps"] = _resident_bytes()
    _reset_peak()
    state.save(run, 1, {})
    peaks["save"] = _peak_bytes()
    ranks.any(False)
    _reset_peak()
    path = checkpoint_path(run, 1)
    state.restore(read_checkpoint(path), path)
    peaks["resume"] = _peak_bytes()
    return peaks


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _resident_bytes() -> int:
    gc.collect()
    return _status_bytes("VmRSS")


def _peak_bytes() -> int:
    return _status_bytes("VmHWM")


def _reset_peak() -> None:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")


def _share(text: str) -> float:
    """A share of the classes. Raises: ValueError: it is not one."""
    if not 0 < (value := float(text)) <= 1:
        raise ValueError(text)
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=positive, default=1_000_000)
    parser.add_argument("--ranks", type=positive, default=8, help="for the calculation")
    parser.add_argument("--images", type=positive, default=512, help="of a step: --batch-size times views")
    parser.add_argument("--sample", type=_share, default=1.0, help="as --head arcface:sample=...")
    parser.add_argument("--optimizer", choices=sorted(BUFFERS), default="sgd")
    parser.add_argument("--measure", action="store_true", help="under torchrun, whose ranks count")
    options = vars(parser.parse_args())
    ranks, measured = options.pop("ranks"), options.pop("measure")
    if not measured:
        print("| phase | MB a rank |\n|---|---:|")
        for phase, size in calculate(ranks=ranks, **options).items():
            print(f"| {phase} | {size / 1e6:,.0f} |")
        return
    rank, ranks, peaks = measure(**options)
    calculated = calculate(ranks=ranks, **options)
    figures = [f"{phase} {size / 1e6:,.0f} of {calculated[phase] / 1e6:,.0f} MB" for phase, size in peaks.items()]
    print(f"rank {rank}: {'; '.join(figures)}")


if __name__ == "__main__":
    main()
