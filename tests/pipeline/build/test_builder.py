"""build-shards: every input is a row, interrupted builds resume, different inputs are refused."""

from __future__ import annotations

import errno
import gzip
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import unicodedata
from collections import Counter

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.align import fit_similarity, template_points
from pipeline.build import build, options_for
from pipeline.build.exclusions import read_exclusions
from pipeline.executors import WorkerError
from pipeline.sources.finder import ImageTree
from pipeline.sources.images import ImageError, decode
from pipeline.sources.landmarks import LandmarkError
from pipeline.sources.listing import SourceError
from pipeline.spec import Preprocessing
from shards.errors import LockedError, LrfrError, ShardError
from shards.files import locked
from shards.schema import Manifest
from shards.verify import verify
from tests.conftest import PATIENCE_S, REPOSITORY, build_options

CSV = "bb_landmark/loose_landmark_train.csv"


def rows_of(out):
    return [row for path in sorted(out.glob("shard-*.parquet")) for row in pq.read_table(path).to_pylist()]


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def image(root, key):
    return root / "train" / f"{key}.jpg"


def csv_lines(root):
    return (root / CSV).read_text().splitlines()


def write_csv(root, lines):
    (root / CSV).write_text("\n".join(lines) + "\n")


def scaled(root, factors):
    """Multiplies the x and y of all points."""
    head, *rows = [line.split(",") for line in csv_lines(root)]
    numbers = [[repr(float(text) * factors[at % 2]) for at, text in enumerate(row[1:])] for row in rows]
    write_csv(
        root, [",".join(words) for words in [head, *([row[0], *new] for row, new in zip(rows, numbers, strict=True))]]
    )


def test_an_identity_that_is_a_link_to_another_is_rejected_and_told(vggface2, tmp_path, capsys):
    lines = csv_lines(vggface2)
    doubled = [line.replace("n000002/", "a_link/") for line in lines if "n000002/" in line]
    elsewhere = [line.replace("n000009/", "elsewhere/") for line in lines if "n000009/" in line]
    write_csv(vggface2, lines + doubled + elsewhere)
    (vggface2 / "train" / "a_link").symlink_to("n000002")
    (vggface2 / "train" / "unused").symlink_to("n000002")  # the table does not name it
    os.rename(vggface2 / "train" / "n000009", tmp_path / "n9")
    (vggface2 / "train" / "elsewhere").symlink_to(tmp_path / "n9")
    build(build_options(vggface2, tmp_path / "out"))
    rows = {row["key"]: (row["status"], row["error_message"]) for row in rows_of(tmp_path / "out")}
    reasons = Counter(value for key, value in rows.items() if not key.startswith("n000009/"))
    assert reasons == {("ok", None): 45, ("duplicate-key", "its folder is the same as n000002"): 5}
    assert {key.split("/")[0] for key, (status, _) in rows.items() if status == "duplicate-key"} == {"a_link"}
    assert "ignored 1 other entry (a_link (the same folder as n000002))" in capsys.readouterr().err
    build(build_options(vggface2, tmp_path / "out"))
    assert "already complete" in capsys.readouterr().err


def test_points_for_larger_images_are_told_and_blamed(vggface2, tmp_path, capsys):
    scaled(vggface2, (3, 3))
    with pytest.raises(ShardError, match=r"no image could be stored \(45 degenerate-landmarks\); check --landmarks,"):
        build(build_options(vggface2, tmp_path / "out"))
    err = capsys.readouterr().err
    assert "loose_landmark_train.csv: the points of 12 of 12 images tried end far outside their image (" in err
    assert "so they are probably for larger images; name the table of these images, or scale its numbers" in err


def test_normalised_points_are_refused_before_anything_is_written(vggface2, tmp_path):
    scaled(vggface2, (1 / 120, 1 / 150))
    with pytest.raises(LandmarkError, match=r"the points of 45 of 45 rows looked at lie between .* are normalised"):
        build(build_options(vggface2, tmp_path / "out"))
    assert list((tmp_path / "out").iterdir()) == []


def test_every_bad_input_is_a_row_with_a_reason(vggface2, tmp_path, capsys):
    whole = image(vggface2, "n000002/0003_01").read_bytes()
    image(vggface2, "n000001/0001_01").unlink()
    image(vggface2, "n000001/0002_01").write_bytes(b"")
    image(vggface2, "n000001/0003_01").write_bytes(b"not an image")
    image(vggface2, "n000001/0004_01").write_bytes(whole[: len(whole) // 2])
    lines = csv_lines(vggface2)
    place = {line.split(",")[0].strip('"'): number for number, line in enumerate(lines)}
    lines[place["n000002/0001_01"]] = '"n000002/0001_01",1,2,,4,5,6,7,8,9,10'
    lines[place["n000002/0002_01"]] = '"n000002/0002_01",1,2,nan,4,5,6,7,8,9,10'
    lines[place["n000003/0001_01"]] = '"n000003/0001_01",' + ",".join(["50.0"] * 10)
    lines[place["n000003/0002_01"]] = '"n000003/0002_01",500,500,540,500,520,530,505,560,535,560'
    lines += [
        lines[place["n000004/0001_01"]],
        '"../../etc/passwd",1,2,3,4,5,6,7,8,9,10',
        '"nofolder",1,2,3,4,5,6,7,8,9,10',
    ]
    write_csv(vggface2, lines)
    build(build_options(vggface2, tmp_path / "out"))
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 45 + 3
    bad = {(row["key"], row["status"]): row["error_message"] for row in rows if row["status"] != "ok"}
    assert bad == {
        ("n000001/0001_01", "missing-file"): f"no image n000001/0001_01 under {vggface2} (train, test)",
        ("n000001/0002_01", "unreadable-image"): "empty file",
        ("n000001/0003_01", "unreadable-image"): "cannot be decoded (12 bytes, not an image or damaged)",
        ("n000001/0004_01", "unreadable-image"): f"damaged JPEG ({len(whole) // 2} bytes): Premature end of JPEG file",
        ("n000002/0001_01", "bad-landmarks"): "P2X is missing",
        ("n000002/0002_01", "bad-landmarks"): "P2X is 'nan', not a finite number",
        ("n000003/0001_01", "degenerate-landmarks"): "the five points coincide or lie on one line",
        ("n000003/0002_01", "degenerate-landmarks"): "all five points lie outside the 120x150 image",
        ("n000004/0001_01", "duplicate-key"): "NAME_ID given before, in loose_landmark_train.csv row 16",
        ("../../etc/passwd", "bad-key"): "the name is not identity/image",
        ("nofolder", "bad-key"): "the name is not identity/image",
    }
    assert all(row["offset"] is None and row["xxh3"] is None for row in rows if row["status"] != "ok")
    err = capsys.readouterr().err
    assert "37 images of 9 identities in 4 shards" in err
    assert (
        "rejected: 2 bad-key, 2 bad-landmarks, 2 degenerate-landmarks, 1 duplicate-key, 1 missing-file, 3 unreadable-image"
        in err
    )
    assert list(verify(tmp_path / "out", full=True)) == []


def test_crops_are_aligned_to_the_template(vggface2, tmp_path):
    build(build_options(vggface2, tmp_path / "out"))
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 45
    for row in rows:
        landmarks = np.reshape(row["landmarks"], (5, 2))
        expected = fit_similarity(landmarks[None], template_points("seed", 128))[0][0]
        np.testing.assert_allclose(np.reshape(row["matrix"], (2, 3)), expected, rtol=1e-5, atol=1e-4)
        assert row["eye_distance"] == pytest.approx(np.linalg.norm(landmarks[1] - landmarks[0]), rel=1e-5)
        assert (row["width"], row["height"]) == (120, 150)


def test_the_arcface_template_is_shifted_by_eight_pixels(vggface2, tmp_path):
    for template in ("seed", "arcface"):
        build(build_options(vggface2, tmp_path / template, preprocessing=Preprocessing(template=template)))
    seed, arcface = ({row["key"]: row["matrix"] for row in rows_of(tmp_path / name)} for name in ("seed", "arcface"))
    assert len(seed) == 45
    for key, matrix in seed.items():
        np.testing.assert_allclose(np.subtract(arcface[key], matrix), (0, 0, 8 * 128 / 112, 0, 0, 0), atol=1e-3)


def test_train_and_test_are_merged_and_labels_follow_sorted_identities(vggface2, tmp_path):
    (vggface2 / "test").mkdir()
    os.rename(vggface2 / "train" / "n000005", vggface2 / "test" / "n000005")
    lines = csv_lines(vggface2)
    moved = [line for line in lines if "n000005" in line]
    write_csv(vggface2, [line for line in lines if "n000005" not in line])
    second = vggface2 / "bb_landmark" / "loose_landmark_test.csv"
    second.write_text("\n".join([lines[0], *moved]) + "\n")
    build(build_options(vggface2, tmp_path / "out", landmarks=(vggface2 / CSV, second)))
    rows = rows_of(tmp_path / "out")
    assert Counter(row["status"] for row in rows) == {"ok": 45}
    assert {row["identity"]: row["label"] for row in rows} == {f"n{person:06d}": person - 1 for person in range(1, 10)}


def test_exclusion_and_min_images(vggface2, tmp_path, capsys):
    exclude = tmp_path / "exclude.txt"
    exclude.write_text('\ufeff# people of the test sets\ntrain/n000001\ntrain/n000002/0001_01.jpg\n"n999999"\n')
    for number in (2, 3, 4, 5):
        lines = [line for line in csv_lines(vggface2) if f"n000009/{number:04d}" not in line]
        write_csv(vggface2, lines)
    build(build_options(vggface2, tmp_path / "out", exclude=exclude, min_images=2))
    rows = rows_of(tmp_path / "out")
    assert Counter(row["status"] for row in rows) == {"ok": 34, "excluded": 6, "too-few-images": 1}
    assert {row["label"] for row in rows if row["identity"] in ("n000001", "n000009")} == {-1}
    assert {row["identity"]: row["label"] for row in rows if row["status"] == "ok"} == {
        f"n{person:06d}": person - 2 for person in range(2, 9)
    }
    assert "exclude.txt: removed 6 images; 1 entry without a match (n999999)" in capsys.readouterr().err


def test_comments_and_paths_in_an_exclusion_list(vggface2, tmp_path, capsys):
    exclude = tmp_path / "exclude.txt"
    exclude.write_text(
        "n000001/   # in LFW, too\r\n./n000002/\r\n  # all of them\r\n\r\n"
        '"n000003" # and this\r\n'
        f"{vggface2}/train/n000004/0001_01.jpg\r\n#n000005\r\nn000006#\r\n"
    )
    build(build_options(vggface2, tmp_path / "out", exclude=exclude))
    found = {row["key"] for row in rows_of(tmp_path / "out") if row["status"] == "excluded"}
    assert {key.split("/")[0] for key in found} == {"n000001", "n000002", "n000003", "n000004"}
    assert len(found) == 16
    assert "removed 16 images; 1 entry without a match (n000006#)" in capsys.readouterr().err


def test_tables_and_lists_from_pipes_build_the_same_set(vggface2, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.sources.streams.PIPE_WAIT_S", PATIENCE_S)
    exclude, pipes = tmp_path / "exclude.txt", (tmp_path / "table", tmp_path / "list")
    exclude.write_text("n000001\n")
    build(build_options(vggface2, tmp_path / "files", exclude=exclude))
    for pipe in pipes:
        os.mkfifo(pipe)
    files = ((vggface2 / CSV).read_bytes(), exclude.read_bytes())
    writers = [threading.Thread(target=pipe.write_bytes, args=(data,)) for pipe, data in zip(pipes, files, strict=True)]
    for writer in writers:
        writer.start()
    build(build_options(vggface2, tmp_path / "pipes", landmarks=(pipes[0],), exclude=pipes[1]))
    for writer in writers:
        writer.join()
    assert contents(tmp_path / "pipes") == contents(tmp_path / "files")


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_an_exclusion_list_in_any_unicode_encoding_is_read(tmp_path, codec):
    path = tmp_path / "exclude.txt"
    path.write_bytes("# people\r\nRen\u00e9e\rn2/1.jpg # blurred\r\n\r\nn3".encode(codec))
    assert read_exclusions(path).entries == ["Ren\u00e9e", "n2/1.jpg", "n3"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (gzip.compress(b"n1\n", mtime=0), "packed by gzip; unpack it first"),
        (b"n1\nn\xe9\n", "line 2: not UTF-8 text; save it as UTF-8"),
    ],
)
def test_an_exclusion_list_that_is_no_text_is_refused_with_the_remedy(tmp_path, data, reason):
    (tmp_path / "exclude.txt").write_bytes(data)
    with pytest.raises(LandmarkError) as error:
        read_exclusions(tmp_path / "exclude.txt")
    assert str(error.value).startswith(f"{tmp_path / 'exclude.txt'}: {reason}")


def test_a_pipe_as_exclusion_list_without_a_writer_is_refused(vggface2, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.sources.streams.PIPE_WAIT_S", 0.05)
    os.mkfifo(tmp_path / "list")
    with pytest.raises(LandmarkError, match="list: a pipe that nobody writes to; expected one identity"):
        build(build_options(vggface2, tmp_path / "out", exclude=tmp_path / "list"))


def test_other_extensions_cost_as_many_file_system_calls_as_jpg(vggface2, tmp_path, monkeypatch):
    calls = []
    for name in ("stat", "lstat", "open", "scandir", "listdir"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, real=real, **options: (calls.append(args), real(*args, **options))[1]
        )
    monkeypatch.setattr("pipeline.sources.finder.CACHED_FOLDERS", 1)
    counts = {}
    for suffix in (".jpg", ".JPG", ".jfif", ".Jpeg"):
        for path in (vggface2 / "train").rglob("*.*"):
            path.rename(path.with_suffix(suffix))
        tree = ImageTree(vggface2, ("train", "test", ""))
        calls.clear()
        keys = [line.split(",")[0].strip('"') for line in csv_lines(vggface2)[1:]]
        assert all(tree.read(key).startswith(b"\xff\xd8") for key in sorted(keys, key=lambda key: key[::-1]))
        counts[suffix] = len(calls) / len(keys)
    assert len(keys) == 45
    assert max(counts.values()) < 1.5
    assert len(set(counts.values())) == 1


def test_decomposed_file_names_are_found_and_the_key_stays(vggface2, tmp_path):
    person = unicodedata.normalize("NFC", "Ren\u00e9e \u00c5")
    lines = [line.replace("n000001/", f"{person}/").replace("0002_01", "\u00e9") for line in csv_lines(vggface2)]
    lines = [line for line in lines if "0003_01" not in line or person not in line]
    write_csv(vggface2, lines)
    folder = (vggface2 / "train" / "n000001").rename(vggface2 / "train" / unicodedata.normalize("NFD", person))
    (folder / "0002_01.jpg").rename(folder / "\u00e9.JPG")  # another form than its folder's
    for path in (vggface2 / "train").glob("n*/0002_01.jpg"):
        path.rename(path.with_name("e\u0301.jpg"))
    build(build_options(vggface2, tmp_path / "out"))
    rows = rows_of(tmp_path / "out")
    assert Counter(row["status"] for row in rows) == {"ok": 44}
    assert {f"{person}/\u00e9", f"{person}/0001_01", "n000002/\u00e9"} <= {row["key"] for row in rows}


def test_a_folder_of_identities_with_any_extension_and_case(painted, tmp_path):
    root = tmp_path / "people"
    lines = []
    names = ["a.PNG", "b.v2.jpeg", "c d.bmp"]
    for (pixels, landmarks), name in zip(painted["n000001"], names, strict=False):
        (root / "Ann O. Nym").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / "Ann O. Nym" / name)
        lines.append(f'"Ann O. Nym/{name}",' + ",".join(map(str, landmarks.ravel())))
    (root / "landmarks.csv").write_text("\n".join(lines) + "\n")
    build(build_options(root, tmp_path / "out", source="folder", landmarks=(root / "landmarks.csv",)))
    assert sorted((row["key"], row["status"]) for row in rows_of(tmp_path / "out")) == [
        ("Ann O. Nym/a", "ok"),
        ("Ann O. Nym/b.v2", "ok"),
        ("Ann O. Nym/c d", "ok"),
    ]
    assert list(verify(tmp_path / "out", full=True)) == []


def test_the_first_usable_row_of_a_repeated_key_is_stored(vggface2, tmp_path):
    lines = csv_lines(vggface2)
    key, _, numbers = lines[1].partition(",")
    lines[1] = f"{key},,2,3,4,5,6,7,8,9,10"
    write_csv(vggface2, [*lines, f"{key},{numbers}", f"{key},{numbers}"])
    build(build_options(vggface2, tmp_path / "out"))
    found = sorted(
        (row["status"], row["error_message"]) for row in rows_of(tmp_path / "out") if f'"{row["key"]}"' == key
    )
    assert found == [
        ("bad-landmarks", "P1X is missing"),
        ("duplicate-key", "NAME_ID given before, in loose_landmark_train.csv row 46"),
        ("ok", None),
    ]


def test_grey_and_transparent_images_are_stored_as_rgb(vggface2, tmp_path):
    picture = Image.open(image(vggface2, "n000001/0001_01"))
    picture.convert("L").save(image(vggface2, "n000001/0001_01"))
    image(vggface2, "n000001/0002_01").unlink()
    picture.convert("RGBA").save(vggface2 / "train" / "n000001" / "0002_01.png")
    build(build_options(vggface2, tmp_path / "out"))
    assert {row["status"] for row in rows_of(tmp_path / "out")} == {"ok"}


def test_a_grey_jpeg_is_stored_like_three_equal_channels(vggface2, tmp_path):
    """Grey JPEGs are warped as one channel."""
    sources = {key: image(vggface2, key) for key in ("n000001/0001_01", "n000002/0001_01")}
    for source in sources.values():
        Image.open(source).convert("L").save(source, quality=95)
    build(build_options(vggface2, tmp_path / "grey"))
    for source in sources.values():
        grey = np.asarray(Image.open(source))
        source.unlink()
        Image.fromarray(np.stack([grey] * 3, -1)).save(source.with_suffix(".png"))
    build(build_options(vggface2, tmp_path / "colour"))
    names = sorted(path.name for path in (tmp_path / "grey").glob("*.tar"))
    assert len(names) == 4
    assert all((tmp_path / "grey" / name).read_bytes() == (tmp_path / "colour" / name).read_bytes() for name in names)


def test_a_pipe_in_place_of_an_image_is_a_missing_file(vggface2, tmp_path):
    image(vggface2, "n000001/0001_01").unlink()
    os.mkfifo(image(vggface2, "n000001/0001_01"))
    build(build_options(vggface2, tmp_path / "out"))
    assert [row["key"] for row in rows_of(tmp_path / "out") if row["status"] == "missing-file"] == ["n000001/0001_01"]
    with pytest.raises(ImageError, match="not a regular file"):
        decode(image(vggface2, "n000001/0001_01"))


def test_processes_build_the_same_bytes(vggface2, tmp_path):
    build(build_options(vggface2, tmp_path / "serial"))
    build(build_options(vggface2, tmp_path / "pool", executor="process", workers=2))
    assert contents(tmp_path / "pool") == contents(tmp_path / "serial")


def test_resuming_keeps_committed_shards(vggface2, tmp_path):
    out = tmp_path / "out"
    build(build_options(vggface2, out))
    (out / "manifest.json").unlink()
    (out / "shard-000001.done.json").unlink()
    (out / "shard-000002.tar").write_bytes(b"truncated")
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*.tar")}
    build(build_options(vggface2, out))
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*.tar")}
    assert sorted(name for name in before if before[name] != after[name]) == ["shard-000001.tar", "shard-000002.tar"]
    assert list(verify(out, full=True)) == []


@pytest.mark.parametrize("name", ["index.parquet", "manifest.json"])
@pytest.mark.parametrize("card", [None, "a card of the user's"])
def test_a_lost_index_or_manifest_is_written_again(vggface2, tmp_path, name, card):
    out = tmp_path / "out"
    build(build_options(vggface2, out))
    if card:
        (out / "README.md").write_text(card)
    before = contents(out)
    (out / name).unlink()
    build(build_options(vggface2, out))
    assert contents(out) == before


def test_a_complete_set_is_not_changed(vggface2, tmp_path, capsys):
    build(build_options(vggface2, tmp_path / "out"))
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    build(build_options(vggface2, tmp_path / "out"))
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    assert "already complete, nothing to do: 45 images" in capsys.readouterr().err


def test_retry_failed_builds_failed_shards_again(vggface2, tmp_path):
    path = image(vggface2, "n000001/0001_01")
    data = path.read_bytes()
    path.unlink()
    out = tmp_path / "out"
    build(build_options(vggface2, out))
    path.write_bytes(data)
    build(build_options(vggface2, out))
    assert Manifest.read(out).statuses == {"ok": 44, "missing-file": 1}
    build(build_options(vggface2, out, retry_failed=True))
    assert Manifest.read(out).statuses == {"ok": 45}
    build(build_options(vggface2, tmp_path / "whole"))
    assert contents(out) == contents(tmp_path / "whole")


def test_retry_failed_sees_a_file_added_by_this_process(vggface2, tmp_path):
    path, out = image(vggface2, "n000001/0001_01"), tmp_path / "out"
    data = path.read_bytes()
    path.unlink()
    build(build_options(vggface2, out))
    assert Manifest.read(out).statuses == {"ok": 44, "missing-file": 1}
    path.with_suffix(".JPEG").write_bytes(data)
    build(build_options(vggface2, out, retry_failed=True))
    assert Manifest.read(out).statuses == {"ok": 45}


def test_a_serial_build_restores_opencv_settings(vggface2, tmp_path):
    image(vggface2, "n000001/0001_01").write_bytes(b"not an image")
    threads, level = cv2.getNumThreads(), cv2.utils.logging.getLogLevel()
    try:
        cv2.setNumThreads(3)
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        build(build_options(vggface2, tmp_path / "out"))
        assert (cv2.getNumThreads(), cv2.utils.logging.getLogLevel()) == (3, cv2.utils.logging.LOG_LEVEL_ERROR)
    finally:
        cv2.setNumThreads(threads)
        cv2.utils.logging.setLogLevel(level)


def test_a_parquet_table_of_landmarks_builds_the_same_crops(vggface2, tmp_path):
    build(build_options(vggface2, tmp_path / "csv"))
    rows = [row for row in rows_of(tmp_path / "csv") if row["key"] != "n000001/0001_01"]
    rows.sort(key=lambda row: row["key"])
    rows.append({"key": "n000001/0001_01", "landmarks": None})
    table = tmp_path / "landmarks.parquet"
    pq.write_table(pa.Table.from_pylist([{name: row[name] for name in ("key", "landmarks")} for row in rows]), table)
    build(build_options(vggface2, tmp_path / "parquet", landmarks=(table,)))
    (missing,) = (row for row in rows_of(tmp_path / "parquet") if row["status"] != "ok")
    assert (missing["key"], missing["status"], missing["error_message"]) == (
        "n000001/0001_01",
        "bad-landmarks",
        "the landmarks are missing",
    )
    expected = {row["key"]: row["xxh3"] for row in rows_of(tmp_path / "csv")}
    found = {row["key"]: row["xxh3"] for row in rows_of(tmp_path / "parquet")}
    del expected["n000001/0001_01"], found["n000001/0001_01"]
    assert len(found) == 44
    assert found == expected


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"min_images": 3}, "--min-images"),
        ({"images_per_shard": 7}, "--images-per-shard"),
        ({"preprocessing": Preprocessing(template="arcface")}, "preprocessing"),
    ],
)
def test_different_options_are_refused_by_name(vggface2, tmp_path, changes, named):
    build(build_options(vggface2, tmp_path / "out"))
    before = contents(tmp_path / "out")
    with pytest.raises(ShardError) as error:
        build(build_options(vggface2, tmp_path / "out", **changes))
    assert str(error.value) == (
        f"{tmp_path / 'out'}: contains a build with different {named}; choose another --out, or delete this folder first"
    )
    assert contents(tmp_path / "out") == before


def test_paths_may_be_strings(vggface2, tmp_path):
    (tmp_path / "none.txt").touch()
    table = str(vggface2 / CSV)
    options = {"root": str(vggface2), "out": str(tmp_path / "out"), "exclude": str(tmp_path / "none.txt")}
    for landmarks in (table, [table]):
        manifest = build(options_for("vggface2", landmarks=landmarks, executor="serial", **options))
        assert manifest.images == 45
    assert build(options_for("vggface2", executor="serial", **options)) == manifest
    changes = {"landmarks": table, "exclude": options["exclude"], "images_per_shard": None}
    assert build(build_options(vggface2, options["out"], **changes)) == manifest
    assert Manifest.read(options["out"]) == manifest
    assert list(verify(options["out"])) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "lfw"}, "unknown source 'lfw'; choose from vggface2, qmul, tinyface, folder"),
        ({"executor": "thread"}, "unknown executor 'thread'; choose from process, serial"),
        ({"template": "x"}, "unknown template 'x'; choose from seed, arcface"),
        ({"workers": 0}, "workers is 0, expected at least 1"),
        ({"images_per_shard": -1}, "images_per_shard is -1, expected at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused(vggface2, tmp_path, changes, message):
    options = {"source": "vggface2", "root": vggface2, "out": tmp_path / "out", **changes}
    with pytest.raises(LrfrError) as error:
        options_for(options.pop("source"), **options)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"workers": "2"}, "workers is '2', expected a whole number"),
        ({"workers": True}, "workers is True, expected a whole number"),
        ({"workers": None}, "workers is None, expected a whole number"),
        ({"min_images": "2"}, "min_images is '2', expected a whole number"),
        ({"min_images": 2.0}, "min_images is 2.0, expected a whole number"),
        ({"images_per_shard": [100]}, "images_per_shard is [100], expected a whole number"),
        ({"max_pixels": None}, "max_pixels is None, expected a whole number"),
        ({"max_pixels": np.arange(2)}, "max_pixels is a ndarray of int64 and shape (2,), expected a whole number"),
        ({"retry_failed": "no"}, "retry_failed is 'no', expected True or False"),
        ({"root": None}, "root is None, expected a path, as text or pathlib.Path"),
        ({"out": b"set"}, "out is b'set', expected a path, as text or pathlib.Path"),
        ({"exclude": 5}, "exclude is 5, expected a path, as text or pathlib.Path"),
        ({"landmarks": 5}, "landmarks is 5, expected a path, or several"),
        ({"landmarks": b"a.csv"}, "landmarks is b'a.csv', expected a path, or several"),
        ({"landmarks": [None]}, "landmarks is None, expected a path, as text or pathlib.Path"),
        ({"source": ["folder"]}, "source is ['folder'], expected one of vggface2, qmul, tinyface, folder"),
        ({"template": 5}, "template is 5, expected one of seed, arcface"),
    ],
)
def test_options_of_a_wrong_type_say_what_was_expected(vggface2, tmp_path, changes, says):
    options = {"source": "vggface2", "root": vggface2, "out": tmp_path / "out", **changes}
    with pytest.raises(TypeError) as error:
        options_for(options.pop("source"), **options)
    assert str(error.value).startswith(says)
    assert not (tmp_path / "out").exists()


def test_a_mapping_in_place_of_options_or_of_a_spec_is_refused(vggface2, tmp_path):
    with pytest.raises(
        TypeError, match=r"^options is \{'source': 'folder'\}, expected BuildOptions, such as options_for"
    ):
        build({"source": "folder"})
    with pytest.raises(TypeError, match=r"^preprocessing is \{'size': 128\}, expected a Preprocessing$"):
        build_options(vggface2, tmp_path / "out", preprocessing={"size": 128})


def test_numbers_of_numpy_are_numbers(vggface2, tmp_path):
    numbers = {"min_images": np.int64(2), "workers": np.int32(1), "images_per_shard": np.uint8(12)}
    assert build(build_options(vggface2, tmp_path / "out", **numbers)).images == 45


def test_different_landmarks_or_root_are_refused(vggface2, tmp_path):
    build(build_options(vggface2, tmp_path / "out"))
    os.rename(vggface2, tmp_path / "moved")
    with pytest.raises(ShardError, match=r"different --root \(it was .*VGGFace2\)"):
        build(build_options(tmp_path / "moved", tmp_path / "out"))
    os.rename(tmp_path / "moved", vggface2)
    write_csv(vggface2, csv_lines(vggface2)[:-1])
    with pytest.raises(ShardError, match="different --landmarks"):
        build(build_options(vggface2, tmp_path / "out"))


def test_a_folder_with_other_files_is_refused(vggface2, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ShardError, match="not empty and not a shard set"):
        build(build_options(vggface2, tmp_path))
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_wrong_root_is_reported_at_once(vggface2, tmp_path):
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(SourceError, match=r"empty: holds no image of 9 identities looked up, such as n000001/0001_01;"):
        build(build_options(tmp_path / "empty", tmp_path / "out", landmarks=(vggface2 / CSV,)))
    assert list((tmp_path / "out").iterdir()) == []


def test_images_that_are_all_unreadable_are_reported_at_the_end(vggface2, tmp_path):
    for path in vggface2.glob("train/*/*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(ShardError, match=r"no image could be stored \(45 unreadable-image\); check --root"):
        build(build_options(vggface2, tmp_path / "out"))


def unmount(folder):
    """What is left of a folder whose disk is unmounted: an empty one."""
    os.rename(folder, folder.with_name("unmounted"))
    folder.mkdir()


def remount(folder):
    folder.rmdir()
    os.rename(folder.with_name("unmounted"), folder)


@pytest.mark.parametrize("lost", ["", "train"])
@pytest.mark.parametrize("vanish", [unmount, lambda folder: os.rename(folder, folder.with_name("unmounted"))])
def test_a_source_that_vanishes_ends_the_build_and_nothing_is_lost(vggface2, tmp_path, monkeypatch, vanish, lost):
    out, landmarks = tmp_path / "out", tmp_path / "landmarks.csv"
    shutil.copy(vggface2 / CSV, landmarks)
    options = build_options(vggface2, out, landmarks=(landmarks,))
    read, calls = ImageTree.read, []

    def reading(*arguments):
        calls.append(arguments)
        if len(calls) == 20:
            vanish(vggface2 / lost)
        return read(*arguments)

    monkeypatch.setattr(ImageTree, "read", reading)
    with pytest.raises(SourceError, match=r"VGGFace2(/train)?: no longer there \(unmounted, moved or deleted"):
        build(options)
    monkeypatch.undo()
    assert sorted(path.name for path in out.glob("*.done.json")) == ["shard-000000.done.json"]
    assert not list(out.glob("*.partial"))
    before = contents(out)
    with pytest.raises(SourceError):  # and while it is away, the same command changes nothing
        build(options)
    assert contents(out) == before
    (vggface2 / lost).mkdir(exist_ok=True)
    remount(vggface2 / lost)
    assert build(options).statuses == {"ok": 45}
    build(build_options(vggface2, tmp_path / "whole", landmarks=(landmarks,)))
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("executor", ["serial", "process"])
def test_an_error_of_writing_ends_the_build_in_the_name_of_the_file(vggface2, tmp_path, executor):
    """A limit of the file size is what SIGXFSZ is about, which Python ignores: the system then says EFBIG."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            build(build_options(vggface2, tmp_path / "out", executor=executor))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert re.fullmatch(rf"{tmp_path}/out/shard-00000\d\.tar", error.value.filename)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plan.json"]
    build(build_options(vggface2, tmp_path / "out"))
    assert list(verify(tmp_path / "out", full=True)) == []


def fail_to_open(monkeypatch, name, number):
    """Lets ``os.open`` fail for files whose path ends with ``name``."""
    opening = os.open

    def failing(path, *rest, **more):
        if str(path).endswith(name):
            raise OSError(number, os.strerror(number), str(path))
        return opening(path, *rest, **more)

    monkeypatch.setattr(os, "open", failing)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ENOTCONN])
def test_no_image_is_blamed_for_trouble_of_the_process_or_the_file_system(vggface2, tmp_path, monkeypatch, number):
    fail_to_open(monkeypatch, "n000004/0002_01.jpg", number)
    with pytest.raises(OSError, match=os.strerror(number)):
        build(build_options(vggface2, tmp_path / "out"))
    monkeypatch.undo()
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert build(build_options(vggface2, tmp_path / "out")).statuses == {"ok": 45}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_an_image_that_the_system_does_not_read_is_a_row(vggface2, tmp_path, monkeypatch, number):
    fail_to_open(monkeypatch, "n000004/0002_01.jpg", number)
    assert build(build_options(vggface2, tmp_path / "out")).statuses == {"ok": 44, "unreadable-image": 1}


def test_trouble_with_committed_shards_is_not_taken_for_their_absence(vggface2, tmp_path, monkeypatch):
    build(build_options(vggface2, tmp_path / "out"))
    before = contents(tmp_path / "out")

    def fail(root, shard):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(root))

    monkeypatch.setattr("shards.writer.read_done", fail)
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        build(build_options(vggface2, tmp_path / "out"))
    assert contents(tmp_path / "out") == before


def test_files_of_the_user_with_names_like_temporary_ones_are_kept(vggface2, tmp_path):
    precious, out = tmp_path / "precious", tmp_path / "out"
    precious.write_text("precious")
    build(build_options(vggface2, out))
    (out / "manifest.json").unlink()
    for name in ("manifest.json.partial", "shard-000001.tar.partial"):
        (out / name).symlink_to(precious)
    (out / "index.parquet.partial").mkdir()
    build(build_options(vggface2, out))
    assert precious.read_text() == "precious"
    assert len(list(out.glob("*.partial"))) == 3
    assert not any(path.is_symlink() for path in out.iterdir() if path.suffix != ".partial")


def test_options_that_reject_every_image_write_nothing(vggface2, tmp_path):
    with pytest.raises(ShardError, match=r"no image is left to store \(45 too-few-images\); nothing was written"):
        build(build_options(vggface2, tmp_path / "out", min_images=99))
    assert list((tmp_path / "out").iterdir()) == []
    build(build_options(vggface2, tmp_path / "out", min_images=2))


def test_identities_without_a_stored_image_are_counted(vggface2, tmp_path, capsys):
    for path in (vggface2 / "train" / "n000003").iterdir():
        path.unlink()
    build(build_options(vggface2, tmp_path / "out"))
    assert Manifest.read(tmp_path / "out").empty_identities == 1
    assert "1 identity lost all images; labels stay the same" in capsys.readouterr().err


def test_pipes_folders_and_broken_links_are_missing_files(vggface2, tmp_path):
    pipe, folder, link = (image(vggface2, f"n000001/000{number}_01") for number in (1, 2, 3))
    for path in (pipe, folder, link):
        path.unlink()
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to("nowhere")
    build(build_options(vggface2, tmp_path / "out"))
    assert Manifest.read(tmp_path / "out").statuses == {"missing-file": 3, "ok": 42}


def test_pipes_in_place_of_finished_files_are_built_again(vggface2, tmp_path):
    out = tmp_path / "out"
    build(build_options(vggface2, out))
    before = contents(out)
    for name in ("index.parquet", "shard-000000.tar", "shard-000001.done.json", "shard-000002.parquet"):
        (out / name).unlink()
        os.mkfifo(out / name)
        build(build_options(vggface2, out))
        assert contents(out) == before


def test_a_file_in_place_of_the_output_folder_is_refused(vggface2, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ShardError, match="out: is a file; choose a folder for --out"):
        build(build_options(vggface2, tmp_path / "out"))


def test_an_output_folder_that_links_to_nowhere_is_refused(vggface2, tmp_path):
    (tmp_path / "out").symlink_to("unmounted")
    with pytest.raises(ShardError, match="out: a link to unmounted, which is not there; create that folder"):
        build(build_options(vggface2, tmp_path / "out"))


def test_two_builds_cannot_share_a_folder(vggface2, tmp_path):
    (tmp_path / "out").mkdir()
    with (
        locked(tmp_path / "out", "testing"),
        pytest.raises(LockedError, match="another process is building shards here"),
    ):
        build(build_options(vggface2, tmp_path / "out"))


def test_an_absent_exclusion_list_is_reported(vggface2, tmp_path):
    with pytest.raises(LandmarkError, match=r"none\.txt.*expected one identity or identity/image a line"):
        build(build_options(vggface2, tmp_path / "out", exclude=tmp_path / "none.txt"))
    assert not (tmp_path / "out").exists()


def die(task):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_reported(vggface2, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.build.builder.run_shard", die)
    with pytest.raises(WorkerError, match=r"^a worker process died \(out of memory\?\)$"):
        build(build_options(vggface2, tmp_path / "out", executor="process", workers=2))


PARENT = """
from held import hold
from pipeline.executors import unordered_map
list(unordered_map(hold, range(2), executor="process", workers=2))
"""
HELD = """
import time
def hold(number):
    print("at work", flush=True)
    time.sleep(3600)
"""


def test_workers_do_not_outlive_a_killed_build(tmp_path):
    """The pipe that all of them write to is closed when the last of them has ended."""
    (tmp_path / "parent.py").write_text(PARENT)
    (tmp_path / "held.py").write_text(HELD)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py"], env=environment, stdout=subprocess.PIPE)
    assert [parent.stdout.readline() for _ in range(2)] == [b"at work\n"] * 2
    parent.kill()
    assert parent.communicate(timeout=PATIENCE_S)[0] == b""


def jpeg(pixels):
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def test_a_damaged_jpeg_is_an_error(tmp_path, painted):
    good = jpeg(painted["n000001"][0][0])
    middle = len(good) // 2
    damaged = {
        "truncated": good[:middle],
        "overwritten": good[:middle] + b"\xff\x3f" * 20 + good[middle + 40 :],
        "no pixels": good[:200],
    }
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match="damaged JPEG"):
            decode(tmp_path / name)


def test_jpegs_of_every_kind_are_decoded_as_by_opencv(tmp_path, painted):
    pixels = painted["n000001"][0][0]
    good = jpeg(pixels)
    thumbnail = b"\xff\xe1" + (len(good) + 2).to_bytes(2, "big") + good  # an APP1 segment that holds a whole JPEG
    (tmp_path / "thumbnail.jpg").write_bytes(good[:2] + thumbnail + good[2:] + b"trailing bytes")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=turned)
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(pixels).convert("L").save(tmp_path / "grey.jpg")
    Image.fromarray(pixels).save(tmp_path / "progressive.jpg", progressive=True, subsampling=0)
    names = sorted(path.name for path in tmp_path.glob("*.jpg"))
    assert len(names) == 5
    for name in names:
        assert np.array_equal(decode(tmp_path / name), cv2.imread(str(tmp_path / name)))
    assert decode(tmp_path / "turned.jpg").shape == (120, 150, 3)
