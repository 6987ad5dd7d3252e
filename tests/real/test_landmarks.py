"""The landmark networks on real faces: LFW and VGGFace2 in the folder that ``LRFR_REAL_DATA`` names.

Collected if the model is there: ``models/face_landmarker.task`` in that folder, or the file that ``LRFR_LANDMARKER`` names.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.build import build, options_for
from pipeline.landmarks.chunk import LandmarkOptions
from pipeline.landmarks.networks import LiteRTNetworks
from pipeline.landmarks.run import find_landmarks
from pipeline.tables.landmark_table import POINT_NAMES
from shards.verify import verify
from tests.real.landmarker import LANDMARKER
from tools.landmark_accuracy import accuracy, given_faces, in_photograph, reduced

DATA = Path(os.environ["LRFR_REAL_DATA"])


@pytest.fixture(scope="module")
def networks():
    return LiteRTNetworks(LANDMARKER)


@pytest.fixture(scope="module")
def faces():
    return given_faces(DATA / "LFW" / "lfw", [DATA / "LFW" / "LFW.csv"], 1000)


def test_nearly_all_faces_are_found_where_the_given_points_are(faces, networks):
    found = accuracy(faces, networks)
    assert found.images == 1000
    assert len(found.distances) >= 995
    assert np.median(found.distances) <= 0.01
    assert np.percentile(found.distances, 95) <= 0.025


@pytest.mark.parametrize(("side", "share", "distance"), [(32, 0.98, 0.04), (16, 0.7, 0.09)])
def test_small_faces(faces, networks, side, share, distance):
    found = accuracy(faces[::5], networks, functools.partial(reduced, side=side))
    assert len(found.distances) >= share * found.images
    assert np.median(found.distances) <= distance


@pytest.mark.parametrize("share", [0.5, 0.25, 0.1, 0.05])
def test_small_faces_in_a_large_photograph(faces, networks, share):
    found = accuracy(faces[::50], networks, functools.partial(in_photograph, share=share))
    assert np.sum(np.array(found.distances) < 0.08) >= 0.95 * found.images


def test_every_kind_of_file_gives_the_same_points(faces, networks, tmp_path):
    image = cv2.imread(faces[0].path)
    (tmp_path / "faces").mkdir()
    rgb = Image.fromarray(image[..., ::-1])
    rgb.save(tmp_path / "faces" / "a.png")
    rgb.convert("L").save(tmp_path / "faces" / "b.png")
    rgb.convert("RGBA").save(tmp_path / "faces" / "c.webp", lossless=True)
    rgb.convert("CMYK").save(tmp_path / "faces" / "d.jpg", quality=98)
    turned = rgb.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned.save(tmp_path / "faces" / "e.jpg", quality=98, exif=exif)
    cv2.imwrite(str(tmp_path / "faces" / "f.png"), image.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "faces" / "g.tif"), image)
    names = sorted(os.listdir(tmp_path / "faces"))
    options = LandmarkOptions(model=LANDMARKER)
    assert find_landmarks(names, tmp_path / "x.parquet", options, root=tmp_path / "faces") == {"ok": 7}
    table = pq.read_table(tmp_path / "x.parquet")
    points = np.array([table[name].to_numpy() for name in POINT_NAMES]).T
    assert np.abs(points - points[0]).max() < 1.5


def test_a_set_without_landmark_files_is_built(tmp_path, capsys):
    root = tmp_path / "VGGFace2"
    (root / "train").mkdir(parents=True)
    identities = sorted((DATA / "VGGFace2" / "train").iterdir())[:60]
    for identity in identities:
        (root / "train" / identity.name).symlink_to(identity)
    count = sum(1 for identity in identities for _ in identity.iterdir())
    options = options_for("vggface2", root=root, landmark_model=LANDMARKER, out=tmp_path / "shards", workers=2)
    manifest = build(options)
    assert manifest.rows == count
    assert manifest.images >= 0.995 * count
    assert list(verify(tmp_path / "shards", full=True)) == []
