"""Statistics and contact sheet of a shard set."""

from __future__ import annotations

import errno

import cv2
import numpy as np
import pytest
import torch

from pipeline.build import build, options_for
from pipeline.degradation.presets import find_degradation
from pipeline.demo.generate import write_demo_data
from pipeline.inspect import contact_sheet, statistics
from pipeline.load.degrade import degrade
from shards.files import write_bytes
from shards.index import ShardIndex, ShardReader
from tests.processes import error_of
from tests.shard_sets import build_options


@pytest.fixture
def unaligned_set(tmp_path):
    """A shard set of 8 images of 4 identities, resized whole."""
    write_demo_data(tmp_path, identities=8, images=2, seed=3, layouts=["QMUL-SurvFace"])
    out = tmp_path / "unaligned"
    build(options_for("qmul", root=tmp_path, landmarks=(), template=None, out=out, executor="serial"))
    return out


def histogram_of(text):
    return [int(line.split()[1]) for line in text.splitlines()[-9:]]


def test_statistics_of_an_aligned_set(shard_set):
    text = statistics(shard_set)
    lines = text.splitlines()
    assert lines[0] == f"{shard_set}: 45 images of 9 identities in 4 shards, from vggface2"
    assert lines[1].startswith("crops: 128 px, template seed, ")
    assert lines[2:4] == [
        "images per identity: min 5, median 5, mean 5.0, max 5",
        "rejected: 0 of 45 rows (none)",
    ]
    assert lines[5] == "eye distance in the source, px:"
    counts = histogram_of(text)
    assert sum(counts) == 45
    assert sum(counts[3:7]) == 45  # 24 to 96 px in images of 120 x 150 px


def test_statistics_of_rejected_rows_and_empty_identities(vggface2, tmp_path):
    for path in (vggface2 / "train" / "n000003").iterdir():
        path.unlink()
    build(build_options(vggface2, tmp_path / "out"))
    text = statistics(tmp_path / "out")
    assert "images per identity: min 5, median 5, mean 5.0, max 5; 1 identity lost all images" in text
    assert "rejected: 5 of 45 rows (5 missing-file)" in text


def test_statistics_of_an_unaligned_set(unaligned_set):
    text = statistics(unaligned_set)
    assert "8 images of 4 identities in 1 shard, from qmul" in text
    assert "crops: 128 px, not aligned, " in text
    assert "shorter side of the source, px:" in text
    assert sum(histogram_of(text)) == 8


def test_the_contact_sheet_has_one_identity_per_row(shard_set, tmp_path):
    out = tmp_path / "new" / "sheet.png"
    contact_sheet(shard_set, out)
    index, sheet = ShardIndex(shard_set), cv2.imread(str(out))
    assert sheet.shape == (24 + 9 * 128, 5 * 128, 3)
    with ShardReader(index) as reader:
        for identity in range(9):
            row = sheet[24 + identity * 128 :][:128]
            for column, px in enumerate((128, 8, 12, 16), start=1):
                jpeg = reader.image(int(index.first[identity]) + column - 1)
                crop = torch.from_numpy(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))
                assert np.array_equal(row[:, column * 128 :][:, :128], degrade(crop, px).numpy())


def test_the_contact_sheet_shows_presets(run, shard_set, tmp_path):
    words = ["--degrade", "surveillance", "--degrade", "webcam"]
    assert run("inspect", shard_set, "--out", tmp_path / "sheet.png", *words).returncode == 0
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (24 + 9 * 128, (2 + 6) * 128, 3)
    contact_sheet(shard_set, tmp_path / "again.png", list(map(find_degradation, words[1::2])))
    assert np.array_equal(cv2.imread(str(tmp_path / "again.png")), sheet)
    contact_sheet(shard_set, tmp_path / "clean.png")
    clean = cv2.imread(str(tmp_path / "clean.png"))
    assert np.array_equal(clean[24:, : 2 * 128], sheet[24:, : 2 * 128])
    assert not np.array_equal(clean[24:, 2 * 128 : 5 * 128], sheet[24:, 2 * 128 : 5 * 128])
    unknown = run("inspect", shard_set, "--degrade", "cctv")
    assert error_of(unknown).startswith("Error: degradation 'cctv' is unknown; choose surveillance, webcam, blind-sr")


def test_a_read_only_set_is_described_without_a_contact_sheet(run, shard_set, tmp_path, monkeypatch):
    def refuse(path, data):
        if path.parent == shard_set:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        write_bytes(path, data)

    monkeypatch.setattr("pipeline.inspect.write_bytes", refuse)
    done = run("inspect", shard_set)
    assert done.returncode == 0
    assert done.stdout.startswith(f"{shard_set}: 45 images")
    assert done.stderr == f"no contact sheet: {shard_set} is read-only; name a file with --out\n"
    assert run("inspect", shard_set, "--out", tmp_path / "sheet.png").returncode == 0
    assert (tmp_path / "sheet.png").exists()
    named = run("inspect", shard_set, "--out", shard_set / "sheet.png")
    assert error_of(named).startswith(f"Error: {shard_set}/sheet.png: Read-only file system")
