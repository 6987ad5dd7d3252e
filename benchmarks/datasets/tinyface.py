"""TinyFace: closed-set identification of web faces of about 20 px, with distractors.

Source: Cheng, Zhu & Gong, Low-resolution face recognition, ACCV 2018.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.datasets.locate import image_folder, require, set_folder
from benchmarks.datasets.matlab import read_image_list
from benchmarks.errors import ProtocolError
from benchmarks.scoring.searches import ClosedSetProtocol, Search
from pipeline.prepare import Request
from shards.system_names import is_system_name

REPORTED_RANKS = (1, 5, 10, 20)
_TEST_SET = "Testing_Set"
_DISTRACTOR_ID = -1


def read_tinyface(root: Path) -> ClosedSetProtocol:
    """Reads the protocol: probes against mates and distractors, ranks 1, 5, 10 and 20, mAP.

    Args:
        root: the data set's folder, its parent, or its ``Testing_Set``.

    Raises:
        ProtocolError: a folder, list or variable is missing or invalid.
    """
    folder = set_folder(root, "TinyFace", _TEST_SET, "TinyFace's test set")
    probes, probe_ids = _listed_images(folder, "Probe", "probe")
    mates, mate_ids = _listed_images(folder, "Gallery_Match", "gallery")
    distractors = image_folder(require([folder], "Gallery_Distractor", "the folder of distractors")).images
    if mateless := sorted(set(probe_ids.tolist()) - set(mate_ids.tolist())):
        raise ProtocolError(f"{folder}: the gallery list has no image of identity {mateless[0]}, a probe")
    paths = [*probes, *mates, *distractors]
    search = Search(
        probes=np.arange(len(probes)),
        probe_ids=probe_ids,
        gallery=np.arange(len(probes), len(paths)),
        gallery_ids=np.concatenate([mate_ids, np.full(len(distractors), _DISTRACTOR_ID)]),
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


def _listed_images(folder: Path, role: str, variable: str) -> tuple[list[Path], np.ndarray]:
    """The images of ``Probe`` or ``Gallery_Match``, and their identities; ``variable``: prefix in the list."""
    siblings = sorted(path for path in folder.parent.iterdir() if path.is_dir() and not is_system_name(path.name))
    name = f"{role.lower()}_img_ID_pairs.mat"
    path = require([folder, folder.parent], name, f"the list of {role} images and identities", siblings)
    return read_image_list(path, variable, image_folder(require([folder], role, f"the folder of {role} images")))
