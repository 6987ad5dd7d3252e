"""Limits on images and files: a row with a reason in a build, a line in a benchmark, the same result of a resumed build."""

from __future__ import annotations

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.build import build
from shards.errors import ShardError
from shards.files import read_record
from shards.schema import PLAN
from tests.networks import save_small
from tests.pipeline.images.image_files import jpeg, restated
from tests.processes import error_of
from tests.shard_sets import build_options, rejected


def image(root, key):
    return root / "train" / f"{key}.jpg"


def test_an_image_or_file_that_is_too_large_is_a_row(vggface2, tmp_path):
    image(vggface2, "n000001/0001_01").write_bytes(restated(jpeg(), 65500, 65500))
    with open(image(vggface2, "n000001/0002_01"), "r+b") as stream:
        stream.truncate(20 << 30)
    assert build(build_options(vggface2, tmp_path / "out")).images == 43
    assert rejected(tmp_path / "out") == {
        "n000001/0001_01": ("unreadable-image", "the image states 65500x65500 px, --max-pixels is 268435456"),
        "n000001/0002_01": (
            "unreadable-image",
            "the file has 21,474,836,480 bytes; at most 1,073,741,824 are read (--max-pixels)",
        ),
    }


def test_the_limit_is_an_option(vggface2, run, tmp_path):
    pixels = np.zeros((200, 120, 3), np.uint8)
    cv2.imwrite(str(image(vggface2, "n000001/0001_01")), pixels)
    done = run("build-shards", "--out", "set", "--executor", "serial", "--max-pixels", 120 * 150)
    assert done.returncode == 0, done.stderr
    assert rejected(tmp_path / "set") == {
        "n000001/0001_01": ("unreadable-image", "the image states 120x200 px, --max-pixels is 18000")
    }


def test_a_build_with_another_limit_is_another_build(vggface2, tmp_path):
    out = tmp_path / "out"
    build(build_options(vggface2, out))
    assert "--max-pixels" not in read_record(out / PLAN)["parts"]  # a set of an earlier version can be resumed
    with pytest.raises(ShardError, match="contains a build with different --max-pixels; choose another --out"):
        build(build_options(vggface2, out, max_pixels=1000))
    other = tmp_path / "other"
    build(build_options(vggface2, other, max_pixels=120 * 150))
    with pytest.raises(ShardError, match="contains a build with different --max-pixels; choose another --out"):
        build(build_options(vggface2, other))


def test_embed_tells_what_is_too_large(run, tmp_path):
    cv2.imwrite(str(tmp_path / "face.png"), np.zeros((50, 40, 3), np.uint8))
    (tmp_path / "bomb.jpg").write_bytes(restated(jpeg(), 65500, 65500))
    with open(tmp_path / "huge.png", "wb") as stream:
        stream.truncate(1 << 40)
    save_small(tmp_path / "net.pt")
    words = ["embed", "face.png", "bomb.jpg", "huge.png", "--out", "x.parquet", "--network", "net.pt", "--no-cache"]
    assert run(*words).returncode == 0
    table = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert [row["error_message"] for row in table] == [
        None,
        "the image states 65500x65500 px, --max-pixels is 268435456",
        "the file has 1,099,511,627,776 bytes; at most 1,073,741,824 are read (--max-pixels)",
    ]
    assert error_of(run(*words, "--max-pixels", 1999)) == "Error: x.parquet: no image could be embedded"
