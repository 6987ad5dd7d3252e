"""build-shards: what is stored, and every bad input is a row."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.align import fit_similarity, template_points
from pipeline.build import build
from pipeline.images.decode import ImageError, decode
from pipeline.sources.file_readers import ImageTree
from pipeline.spec import Preprocessing
from pipeline.tables.landmark_table import LandmarkError
from shards.errors import ShardError
from shards.schema import Manifest
from shards.verify import verify
from tests.pipeline.build.made import CSV, csv_lines, image, write_csv
from tests.shard_sets import build_options, rows_of

CUT = "Corrupt JPEG data: premature end of data segment"


def scaled(root, factors):
    """Multiplies the x and y of all points."""
    head, *rows = [line.split(",") for line in csv_lines(root)]
    numbers = [[repr(float(text) * factors[at % 2]) for at, text in enumerate(row[1:])] for row in rows]
    write_csv(
        root, [",".join(words) for words in [head, *([row[0], *new] for row, new in zip(rows, numbers, strict=True))]]
    )


def test_an_identity_that_is_a_link_to_another_is_rejected_and_reported(vggface2, tmp_path, capsys):
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


def test_points_for_larger_images_are_reported_as_the_cause(vggface2, tmp_path, capsys):
    scaled(vggface2, (3, 3))
    with pytest.raises(
        ShardError, match=r"no image could be stored \(45 degenerate-landmarks, such as n0.*; check --landmarks,"
    ):
        build(build_options(vggface2, tmp_path / "out"))
    err = capsys.readouterr().err
    assert "loose_landmark_train.csv: the points of 12 of 12 images tried end far outside their image (" in err
    assert "so they are probably for larger images; name the table of these images, or scale its numbers" in err


def test_normalised_points_are_refused_before_anything_is_written(vggface2, tmp_path):
    scaled(vggface2, (1 / 120, 1 / 150))
    with pytest.raises(LandmarkError, match=r"the points of 45 of 45 rows looked at lie between .* are normalised"):
        build(build_options(vggface2, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


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
    lines[place["n000003/0003_01"]] = '"n000003/0003_01",-1000000,60,70,60,55,80,45,100,65,100'
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
        ("n000001/0004_01", "unreadable-image"): f"damaged JPEG ({len(whole) // 2} bytes): {CUT}",
        ("n000002/0001_01", "bad-landmarks"): "P2X is missing",
        ("n000002/0002_01", "bad-landmarks"): "P2X is 'nan', not a finite number",
        ("n000003/0001_01", "degenerate-landmarks"): "the five points coincide or lie on one line",
        ("n000003/0002_01", "degenerate-landmarks"): "all five points lie outside the 120x150 image",
        ("n000003/0003_01", "degenerate-landmarks"): "some points lie far outside the 120x150 image",
        ("n000004/0001_01", "duplicate-key"): "NAME_ID given before, in loose_landmark_train.csv row 16",
        ("../../etc/passwd", "bad-key"): "the name is not identity/image",
        ("nofolder", "bad-key"): "the name is not identity/image",
    }
    assert all(row["offset"] is None and row["xxh3"] is None for row in rows if row["status"] != "ok")
    err = capsys.readouterr().err
    assert "36 images of 9 identities in 4 shards" in err
    assert (
        "rejected: 2 bad-key, 2 bad-landmarks, 3 degenerate-landmarks, 1 duplicate-key, 1 missing-file, 3 unreadable-image"
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


def test_other_extensions_cost_as_many_file_system_calls_as_jpg(vggface2, tmp_path, monkeypatch):
    calls = []
    for name in ("stat", "lstat", "open", "scandir", "listdir"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, real=real, **options: (calls.append(args), real(*args, **options))[1]
        )
    monkeypatch.setattr("pipeline.sources.file_readers.CACHED_FOLDERS", 1)
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
