"""QMUL-SurvFace face verification.

Source: Cheng, Zhu & Gong, Surveillance face recognition challenge, 2018.
"""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from PIL import Image
from scipy.io.matlab import MatReadError

from benchmarks.metrics import bootstrap_intervals, fold_accuracies, roc_curve
from benchmarks.runner import Embed, ProtocolError, Result, check_preprocessing, data_label, embed_files, find_entry

FALSE_ACCEPT_RATES = (0.3, 0.1, 0.01, 0.001)
TEST_SET = "Face_Verification_Test_Set"
IMAGES = "verification_images"
# The protocol resizes images straight to the input, so the alignment template plays no part.
_DEPENDS_ON = ("size", "degradation", "color", "mean", "std")
_FOLDS = 10
_CURVE_POINTS = 100
# what SciPy raises on damaged files, as found by damaging them
_UNREADABLE = (OSError, ValueError, NotImplementedError, TypeError, LookupError, EOFError, MatReadError, zlib.error)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """The verification pairs.

    Attributes:
        paths: (M,) the distinct images.
        identities: (M,) int codes of the people on them.
        members: (N, 2) rows of ``paths``: genuine pairs first, then impostors, each in the order of its file.
        genuine: (N,) bool.
    """

    paths: list[Path]
    identities: np.ndarray
    members: np.ndarray
    genuine: np.ndarray

    @property
    def folds(self) -> np.ndarray:
        """(N,) fold of each pair: ten contiguous parts of the genuine and of the impostor pairs."""
        counts = (int(self.genuine.sum()), int((~self.genuine).sum()))
        return np.concatenate([np.arange(count) * _FOLDS // count for count in counts])


def read_pairs(root: Path) -> Pairs:
    """Reads the verification set under ``root``, the data set's folder or a folder that holds it.

    Raises:
        ProtocolError: a folder, .mat file, variable or image is missing or not as the protocol has it.
    """
    folder = _test_set(root)
    names = [_pair_names(folder, kind) for kind in ("positive", "negative")]
    images = find_entry(folder, IMAGES)
    if images is None:
        raise ProtocolError(f"{folder / IMAGES}: not found; expected the folder of verification images")
    on_disk = {path.name.lower(): path for path in images.iterdir()}
    stacked = np.concatenate(names)
    distinct, members = np.unique(stacked, return_inverse=True)
    missing = [name for name in distinct if name.lower() not in on_disk]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ProtocolError(
            f"{images / missing[0]}: not found{more}, but the pair lists name it; restore it from the data set's archive"
        )
    people = np.unique([name.split("_")[0] for name in distinct], return_inverse=True)[1]
    return Pairs(
        paths=[on_disk[name.lower()] for name in distinct],
        identities=people,
        members=members.reshape(-1, 2),
        genuine=np.arange(len(stacked)) < len(names[0]),
    )


def bench_qmul(
    root: Path, embed: Embed, *, stated: dict[str, Any] | None, checkpoint: dict[str, Any], batch_size: int = 64
) -> Result:
    """Scores an embedder: TAR at FAR 30, 10, 1 and 0.1 %, AUC, accuracy over ten folds, with 95 % intervals.

    Args:
        root: the QMUL-SurvFace folder.
        embed: (N, S, S, 3) uint8 RGB -> (N, D) float32.
        stated: the checkpoint's preprocessing spec, if it states one.
        checkpoint: facts for the result.

    Raises:
        ProtocolError: the data is not as expected, or the preprocessing disagrees.
    """
    spec = check_preprocessing(stated, _DEPENDS_ON, "qmul", checkpoint)
    pairs = read_pairs(root)
    unit = embed_files(
        pairs.paths,
        lambda image: image.resize((spec.size, spec.size), Image.Resampling.BICUBIC),
        embed,
        batch_size=batch_size,
        label="bench qmul",
    )
    scores = np.einsum("nd,nd->n", unit[pairs.members[:, 0]], unit[pairs.members[:, 1]])
    roc = roc_curve(scores, pairs.genuine)
    accuracies = fold_accuracies(scores, pairs.genuine, pairs.folds)
    grid = np.geomspace(1 / (~pairs.genuine).sum(), 1.0, _CURVE_POINTS)
    intervals, band = _intervals(scores, pairs, grid)
    return Result(
        benchmark="qmul",
        data=data_label(root),
        metrics={
            **{f"tar@far={far:g}": roc.tar_at(far) for far in FALSE_ACCEPT_RATES},
            "auc": roc.auc,
            "accuracy": float(accuracies.mean()),
            "std": float(accuracies.std()),
        },
        intervals=intervals,
        counts={
            "pairs": len(scores),
            "genuine": int(pairs.genuine.sum()),
            "images": len(pairs.paths),
            "embedded": len(unit),
        },
        checkpoint=checkpoint,
        preprocessing=spec.to_dict(),
        curve={
            "far": grid.tolist(),
            "tar": [roc.tar_at(far) for far in grid],
            "low": [low for low, _ in band],
            "high": [high for _, high in band],
        },
    )


def _intervals(
    scores: np.ndarray, pairs: Pairs, grid: np.ndarray
) -> tuple[dict[str, tuple[float, float]], list[tuple[float, float]]]:
    """95 % intervals of the figures, and of TAR at each FAR of ``grid``."""

    def figures(weights: np.ndarray) -> dict[str, float]:
        if not weights[pairs.genuine].any() or not weights[~pairs.genuine].any():
            return {}
        drawn = roc_curve(scores, pairs.genuine, weights)
        named = {f"tar@far={far:g}": drawn.tar_at(far) for far in FALSE_ACCEPT_RATES}
        return {**named, "auc": drawn.auc, **{f"curve {point}": drawn.tar_at(far) for point, far in enumerate(grid)}}

    intervals = bootstrap_intervals(figures, pairs.identities[pairs.members])
    return intervals, [intervals.pop(f"curve {point}") for point in range(len(grid))]


def _test_set(root: Path) -> Path:
    candidates = (root, root / "QMUL-SurvFace")
    for base in candidates:
        if found := find_entry(base, TEST_SET):
            return found
    if find_entry(root, IMAGES):
        return root
    raise ProtocolError(
        f"{root}: no {TEST_SET} in it; give the QMUL-SurvFace folder with --root (or run: python cli.py demo-data)"
    )


def _pair_names(folder: Path, kind: str) -> np.ndarray:
    """(N, 2) file names of ``<kind>_pairs_names.mat``."""
    variable = f"{kind}_pairs_names"
    path = find_entry(folder, f"{variable}.mat")
    if path is None:
        raise ProtocolError(f"{folder / variable}.mat: not found; expected the pair list of the verification protocol")
    try:
        content = scipy.io.loadmat(path)
    except _UNREADABLE as error:
        raise ProtocolError(
            f"{path}: not a readable MATLAB 5 file ({(str(error).splitlines() or [''])[0][:80]}); restore it from the archive"
        ) from None
    if variable not in content:
        found = ", ".join(name for name in content if not name.startswith("__")) or "nothing"
        raise ProtocolError(f"{path}: holds {found}, expected the variable {variable}")
    cells = content[variable]
    if cells.ndim == 2 and cells.shape[1] == 2 and len(cells) < _FOLDS:
        raise ProtocolError(f"{path}: {len(cells)} pairs, the protocol's {_FOLDS} folds need at least as many")
    if cells.ndim != 2 or cells.shape[1] != 2:
        raise ProtocolError(f"{path}: {variable} has shape {cells.shape}, expected (pairs, 2) cells of file names")
    return np.array([[_text(cell, path) for cell in row] for row in cells])


def _text(cell: Any, path: Path) -> str:
    inner = np.asarray(cell).ravel()
    while inner.dtype == object and inner.size:
        inner = np.asarray(inner[0]).ravel()
    if inner.size != 1 or inner.dtype.kind != "U":
        raise ProtocolError(f"{path}: a cell holds {inner.dtype} of size {inner.size}, expected one file name")
    return str(inner[0])
