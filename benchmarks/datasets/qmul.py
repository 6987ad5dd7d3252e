"""QMUL-SurvFace: verification and open-set identification.

Source: Cheng, Zhu & Gong, Surveillance face recognition challenge, 2018.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.datasets.locate import image_folder, require, set_folder
from benchmarks.datasets.matlab import read_cells, read_image_list
from benchmarks.errors import ProtocolError
from benchmarks.scoring.protocols import PairProtocol
from benchmarks.scoring.searches import OpenSetProtocol, Search
from pipeline.prepare import Request
from shards.messages import counted

FALSE_ACCEPT_RATES = (0.3, 0.1, 0.01, 0.001)
FALSE_IDENTIFICATION_RATES = (0.3, 0.2, 0.1, 0.01)
WITHIN_RANK = 20
FOLDS = 10
VERIFICATION, IDENTIFICATION = "Face_Verification_Test_Set", "Face_Identification_Test_Set"
_EVALUATION = "Face_Identification_Evaluation"  # some copies keep the lists here


def read_qmul(root: Path) -> PairProtocol:
    """Reads the verification protocol: TAR at FAR 30, 10, 1 and 0.1 %, AUC, accuracy over ten contiguous folds.

    Args:
        root: the data set's folder, its parent, or the verification set.

    Raises:
        ProtocolError: a folder, list or variable is missing or invalid.
    """
    folder = set_folder(root, "QMUL-SurvFace", VERIFICATION, "the verification set of QMUL-SurvFace")
    genuine_names, impostor_names = (_pair_names(folder, kind) for kind in ("positive", "negative"))
    images = image_folder(require([folder], "verification_images", "the folder of verification images"))
    distinct, members = np.unique(np.concatenate([genuine_names, impostor_names]), return_inverse=True)
    identities = np.unique([name.split("_")[0] for name in distinct], return_inverse=True)[1]
    members = members.reshape(-1, 2)
    return PairProtocol(
        name="qmul",
        title="QMUL-SurvFace verification",
        root=folder.parent,
        published_counts={"pairs": 10_640},
        requests=[Request(path=images.find(name)) for name in distinct],
        main="auc",
        members={"{}": members},
        identities=identities[members],
        genuine=np.arange(len(members)) < len(genuine_names),
        folds=np.concatenate(
            [np.arange(len(names)) * FOLDS // len(names) for names in (genuine_names, impostor_names)]
        ),
        rates=FALSE_ACCEPT_RATES,
    )


def _pair_names(folder: Path, kind: str) -> np.ndarray:
    """(N, 2) file names in ``<kind>_pairs_names.mat``."""
    variable = f"{kind}_pairs_names"
    path = require([folder], f"{variable}.mat", "the pair list of the verification protocol")
    names = read_cells(path, variable, 2)
    if len(names) < FOLDS:
        raise ProtocolError(f"{path}: {counted(len(names), 'pair')}, expected at least one for each of {FOLDS} folds")
    return names


def read_qmul_id(root: Path) -> OpenSetProtocol:
    """Reads the open-set identification protocol: TPIR20 at FPIR 30, 20, 10 and 1 %, AUC.

    The template of a gallery identity is the mean of its embeddings, scaled to unit length.

    Args:
        root: the data set's folder, its parent, or the identification set.

    Raises:
        ProtocolError: a folder, list or variable is missing or invalid.
    """
    folder = set_folder(root, "QMUL-SurvFace", IDENTIFICATION, "the identification set of QMUL-SurvFace")
    gallery, gallery_ids = _listed_images(folder, "gallery")
    mated, mated_ids = _listed_images(folder, "mated_probe")
    unmated = image_folder(require([folder], "unmated_probe", "the folder of unmated probes")).images
    if not unmated:
        raise ProtocolError(f"{folder / 'unmated_probe'}: contains no images; expected the unmated probes")
    if mateless := sorted(set(mated_ids.tolist()) - set(gallery_ids.tolist())):
        raise ProtocolError(f"{folder}: the gallery list has no image of identity {mateless[0]}, a mated probe")
    paths = [*mated, *unmated, *gallery]
    probes = np.arange(len(mated) + len(unmated))
    strangers = [path.name if path.stem.startswith("distractor") else path.stem.split("_")[0] for path in unmated]
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


def _listed_images(folder: Path, role: str) -> tuple[list[Path], np.ndarray]:
    """The images of ``gallery`` or ``mated_probe``, and their identities."""
    places = [folder, folder.parent / _EVALUATION, folder / _EVALUATION, folder.parent]
    path = require(places, f"{role}_img_ID_pairs.mat", f"the list of {role} images and identities")
    return read_image_list(path, role, image_folder(require([folder], role, f"the folder of {role} images")))
