"""TinyFace: closed-set identification of web faces of about 20 px among distractors.

Source: Cheng, Zhu & Gong, Low-resolution face recognition, ACCV 2018.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.datasets.locate import require, set_folder
from benchmarks.datasets.matlab import read_cells, read_ids
from benchmarks.errors import ProtocolError
from benchmarks.scoring.protocols import ClosedSetProtocol, Search
from pipeline.prepare import Request
from pipeline.sources.finder import ImageFolder

REPORTED_RANKS = (1, 5, 10, 20)
_TEST_SET = "Testing_Set"
_DISTRACTOR = -1


def read_tinyface(root: Path) -> ClosedSetProtocol:
    """Probes against matches and distractors: CMC at rank 1, 5, 10, 20, mAP.

    Args:
        root: the data set's folder, the one above, or its ``Testing_Set``.

    Raises:
        ProtocolError: a folder, list or variable is missing or not as the protocol has it.
    """
    folder = set_folder(root, "TinyFace", _TEST_SET, "TinyFace's test set")
    probes, probe_ids = _listed(folder, "Probe", "probe_img_ID_pairs.mat", "probe")
    matches, match_ids = _listed(folder, "Gallery_Match", "gallery_match_img_ID_pairs.mat", "gallery")
    distractors = ImageFolder(require([folder], ["Gallery_Distractor"], "the folder of distractors")).images
    without = sorted(set(probe_ids.tolist()) - set(match_ids.tolist()))
    if without:
        raise ProtocolError(f"{folder}: probes of identity {without[0]}, of whom the gallery list has no image")
    paths = [*probes, *matches, *distractors]
    search = Search(
        probes=np.arange(len(probes)),
        probe_ids=probe_ids,
        gallery=np.arange(len(probes), len(paths)),
        gallery_ids=np.concatenate([match_ids, np.full(len(distractors), _DISTRACTOR)]),
    )
    return ClosedSetProtocol(
        name="tinyface",
        title="TinyFace",
        root=folder.parent,
        published_counts={"gallery": 157_871, "probes": 3728},
        requests=[Request(path=path) for path in paths],
        main="rank1",
        searches={"{}": search},
        reported=REPORTED_RANKS,
        mean_precision=True,
    )


def _listed(folder: Path, images: str, name: str, variable: str) -> tuple[list[Path], np.ndarray]:
    """The images that a list names, and their identities."""
    beside = sorted(path for path in folder.parent.iterdir() if path.is_dir())
    path = require([folder, folder.parent], [name], f"the list of {images} images and identities", beside)
    names = read_cells(path, f"{variable}_set", 1)[:, 0]
    if not len(names):
        raise ProtocolError(f"{path}: lists no image")
    within = ImageFolder(require([folder], [images], f"the folder of {images} images"))
    return [within.find(name) for name in names], read_ids(path, f"{variable}_ids", len(names))
