"""QMUL-SurvFace: verification, and open-set identification against a watch list.

Source: Cheng, Zhu & Gong, Surveillance face recognition challenge, 2018.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.datasets.locate import require, set_folder
from benchmarks.datasets.matlab import read_cells, read_ids
from benchmarks.errors import ProtocolError
from benchmarks.scoring.protocols import OpenSetProtocol, PairProtocol, Search
from pipeline.prepare import Request
from pipeline.sources.finder import ImageFolder

FALSE_ACCEPT_RATES = (0.3, 0.1, 0.01, 0.001)
FALSE_IDENTIFICATION_RATES = (0.3, 0.2, 0.1, 0.01)
WITHIN_RANK = 20
VERIFICATION, IDENTIFICATION = "Face_Verification_Test_Set", "Face_Identification_Test_Set"
_EVALUATION = "Face_Identification_Evaluation"  # some copies keep the lists here
_FOLDS = 10


def read_qmul(root: Path) -> PairProtocol:
    """Verification: TAR at FAR 30, 10, 1 and 0.1 %, AUC, accuracy over ten contiguous folds.

    Args:
        root: the data set's folder, the one above, or the verification set itself.

    Raises:
        ProtocolError: a folder, list or variable is missing or not as the protocol has it.
    """
    folder = set_folder(root, "QMUL-SurvFace", VERIFICATION, "the verification set of QMUL-SurvFace")
    names = [_pair_names(folder, kind) for kind in ("positive", "negative")]
    images = ImageFolder(require([folder], ["verification_images"], "the folder of verification images"))
    stacked = np.concatenate(names)
    distinct, members = np.unique(stacked, return_inverse=True)
    people = np.unique([name.split("_")[0] for name in distinct], return_inverse=True)[1]
    members = members.reshape(-1, 2)
    genuine = np.arange(len(stacked)) < len(names[0])
    return PairProtocol(
        name="qmul",
        title="QMUL-SurvFace verification",
        root=folder.parent,
        published_counts={"pairs": 10_640},
        requests=[Request(path=images.find(name)) for name in distinct],
        main="auc",
        members={"{}": members},
        identities=people[members],
        genuine=genuine,
        folds=np.concatenate([np.arange(len(kind)) * _FOLDS // len(kind) for kind in names]),
        rates=FALSE_ACCEPT_RATES,
    )


def _pair_names(folder: Path, kind: str) -> np.ndarray:
    """(N, 2) file names of ``<kind>_pairs_names.mat``."""
    variable = f"{kind}_pairs_names"
    path = require([folder], [f"{variable}.mat"], "the pair list of the verification protocol")
    names = read_cells(path, variable, 2)
    if len(names) < _FOLDS:
        raise ProtocolError(f"{path}: {len(names)} pairs, the protocol's {_FOLDS} folds need at least as many")
    return names


def read_qmul_id(root: Path) -> OpenSetProtocol:
    """Open-set identification: TPIR20 at FPIR 30, 20, 10 and 1 %, and the area under that curve.

    A gallery identity is the mean of its images' embeddings, scaled to unit length.

    Args:
        root: the data set's folder, the one above, or the identification set itself.

    Raises:
        ProtocolError: as ``read_qmul``.
    """
    folder = set_folder(root, "QMUL-SurvFace", IDENTIFICATION, "the identification set of QMUL-SurvFace")
    gallery, gallery_ids = _listed(folder, "gallery", "gallery")
    mated, mated_ids = _listed(folder, "mated_probe", "mated_probe")
    unmated = ImageFolder(require([folder], ["unmated_probe"], "the folder of unmated probes")).images
    if not unmated:
        raise ProtocolError(f"{folder / 'unmated_probe'}: no image in it; expected the unmated probes")
    without = sorted(set(mated_ids.tolist()) - set(gallery_ids.tolist()))
    if without:
        raise ProtocolError(f"{folder}: mated probes of identity {without[0]}, of whom the gallery list has no image")
    paths = [*mated, *unmated, *gallery]
    probes = np.arange(len(mated) + len(unmated))
    strangers = [f"{path.name}" if path.stem.startswith("distractor") else path.stem.split("_")[0] for path in unmated]
    people = np.unique([*(f"mated {identity}" for identity in mated_ids), *strangers], return_inverse=True)[1]
    return OpenSetProtocol(
        name="qmul-id",
        title="QMUL-SurvFace open-set identification",
        root=folder.parent,
        published_counts={"gallery": 60_294, "mated_probes": 60_423, "unmated_probes": 121_736},
        requests=[Request(path=path) for path in paths],
        main="auc",
        search=Search(
            probes=probes,
            probe_ids=np.concatenate([mated_ids, np.full(len(unmated), -1)]),
            gallery=np.arange(len(probes), len(paths)),
            gallery_ids=gallery_ids,
        ),
        people=people,
        rates=FALSE_IDENTIFICATION_RATES,
        within=WITHIN_RANK,
    )


def _listed(folder: Path, images: str, variable: str) -> tuple[list[Path], np.ndarray]:
    """The images that a list names, and their identities."""
    name = f"{images}_img_ID_pairs.mat"
    places = [folder, folder.parent / _EVALUATION, folder / _EVALUATION, folder.parent]
    path = require(places, [name], f"the list of {images} images and identities")
    names = read_cells(path, f"{variable}_set", 1)[:, 0]
    if not len(names):
        raise ProtocolError(f"{path}: lists no image")
    within = ImageFolder(require([folder], [images], f"the folder of {images} images"))
    return [within.find(name) for name in names], read_ids(path, f"{variable}_ids", len(names))
