"""Names of images and folders in training sets without landmarks."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import unicodedata
from collections import Counter
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
import xxhash
from PIL import Image

from pipeline.build import build
from pipeline.images.lookup import IMAGE_SUFFIXES
from pipeline.load.loader import Loader
from pipeline.sources.file_readers import ImageTree
from shards.index import ShardIndex, ShardReader
from shards.schema import Manifest
from shards.verify import verify
from tests.pipeline.build.made import contents
from tests.pipeline.build.unaligned import FIRST, IMAGES, PEOPLE, options, picture
from tests.shard_sets import rows_of


def test_file_names_in_any_case_and_arbitrary_identity_names(training, tmp_path):
    for path in training.glob("*"):
        shutil.rmtree(path)
    faces = {"Ann O. Nym": ["a.JPG", "A.jpeg", "b.v2.Png", "c d.jpg"], "0": ["A_CAM1_1.BMP"], "-x (1)": ["1.WebP"]}
    pixels = np.random.default_rng(0).integers(0, 256, (6, 20, 17, 3), np.uint8)
    painted = iter(pixels)
    for person, names in faces.items():
        (training / person).mkdir()
        for name in names:
            content = io.BytesIO()
            Image.fromarray(next(painted)).save(content, "PNG")  # loses nothing
            (training / person / name).write_bytes(content.getvalue())
    build(options(training, tmp_path / "out"))
    rows = {row["key"]: (row["label"], row["status"]) for row in rows_of(tmp_path / "out")}
    assert rows == {
        "-x (1)/1": (0, "ok"),
        "0/A_CAM1_1": (1, "ok"),
        **{f"Ann O. Nym/{name}": (2, "ok") for name in ("a", "A", "b.v2", "c d")},
    }
    for person, names in faces.items():
        for name in names:
            assert ImageTree(training).find(f"{person}/{name.rpartition('.')[0]}") == training / person / name
    assert list(verify(tmp_path / "out", full=True)) == []


ODD_NAMES = [
    "a\nb",
    "a\\b",
    "a\x1b[31m",
    'a"b',
    "a,b;c",
    "%41",
    "~ #?*",
    "-n",
    " ",
    "..a",
    "\u0130\u4e2d\U0001f600",
    "\udcff\udcfe",
    "\\udcff",
    "\u00e9" * 100,  # 600 bytes once it is percent-encoded
    "e\u0301" * 60,
    "n" * 250,
]


def test_any_name_that_the_file_system_takes_is_stored(training, tmp_path, painted):
    for path in training.glob("*"):
        shutil.rmtree(path)
    pixels = [shot for shots in painted.values() for shot, _ in shots][: len(ODD_NAMES)]
    for name, face in zip(ODD_NAMES, pixels, strict=True):
        (training / f"id {name}"[:250]).mkdir()
        Image.fromarray(face).save(training / f"id {name}"[:250] / f"x{name}.png"[-250:], "PNG")
    out = tmp_path / "out"
    build(options(training, out))
    rows = rows_of(out)
    assert [(row["key"], row["error_message"]) for row in rows if row["status"] != "ok"] == []
    assert len(rows) == len(ODD_NAMES)
    assert list(verify(out, full=True)) == []
    stored = {row["key"]: row for row in rows}
    index = ShardIndex(out)
    with ShardReader(index) as reader:
        for number in range(len(index)):
            row = stored[index.key(number)]
            assert cv2.imdecode(np.frombuffer(reader.image(number), np.uint8), 1) is not None
            with tarfile.open(out / f"shard-{row['shard']:06d}.tar") as tar:
                (member,) = (one for one in tar.getmembers() if one.offset_data == row["offset"])
            stem = member.name.removesuffix(".jpg")
            assert stem == xxhash.xxh3_128_hexdigest(row["key"].encode()) or unquote(stem) == row["key"]
    with Loader(index, batch_size=2) as batches:
        assert next(iter(batches)).images.shape[0] == 4


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_extension_that_opencv_reads_is_an_image(tmp_path, painted, suffix):
    pixels = np.ascontiguousarray(painted["n000001"][0][0][:64, :64, ::-1])
    kind = {".jfif": ".jpg", ".pxm": ".ppm"}.get(suffix, suffix)
    pixels = pixels[..., 0] if kind in (".pgm", ".pbm") else pixels
    pixels = pixels.astype(np.float32) / 255 if kind in (".pfm", ".hdr") else pixels
    parameters = [cv2.IMWRITE_PXM_BINARY, 1] if kind == ".pbm" else []
    person = tmp_path / "training_set" / "1"
    person.mkdir(parents=True)
    kinds = {".avif": "AVIF", ".mpo": "MPO", ".j2k": "JPEG2000", ".j2c": "JPEG2000"}
    for name in (f"a{suffix}", f"b{suffix.upper()}"):
        if suffix in kinds:
            Image.fromarray(pixels).save(person / name, kinds[suffix], **({"no_jp2": True} if "j2" in suffix else {}))
        else:
            (person / name).write_bytes(cv2.imencode(kind, pixels, parameters)[1].tobytes())
    build(options(tmp_path, tmp_path / "out"))
    assert [(row["key"], row["status"]) for row in rows_of(tmp_path / "out")] == [("1/a", "ok"), ("1/b", "ok")]


HIDDEN = [".ipynb_checkpoints", ".Trash-1000", "@eaDir", "#recycle", "__MACOSX", "lost+found", "$RECYCLE.BIN"]


def test_hidden_and_system_entries_are_other_entries(training, tmp_path, capsys):
    build(options(training, tmp_path / "clean", min_images=IMAGES))
    clean = contents(tmp_path / "clean")
    whole = picture(training, 1).read_bytes()
    for name in HIDDEN:
        for folder in (training / name, training / str(FIRST) / name):
            folder.mkdir()
            (folder / "x.jpg").write_bytes(whole)
    (training / "lost+found").chmod(0)  # as on a disk of its own
    for path in list(training.glob("[0-9]*/*.jpg")):
        path.with_name(f"._{path.name}").write_bytes(bytes(4096))
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (training / name).write_bytes(b"")
        (training / str(FIRST) / name).write_bytes(b"")
    (training / "loop").symlink_to("loop")
    (training / "dangling").symlink_to("nowhere")
    os.mkfifo(training / "pipe")
    capsys.readouterr()
    (tmp_path / "out").mkdir()
    for name in (".DS_Store", "@eaDir", ".nfs0001"):
        (tmp_path / "out" / name).touch()
    build(options(training, tmp_path / "out", min_images=IMAGES))
    for name in (".DS_Store", "@eaDir", ".nfs0001"):
        (tmp_path / "out" / name).unlink()
    assert contents(tmp_path / "out") == clean
    others = len(HIDDEN) * 2 + PEOPLE * IMAGES + 6 + 3
    assert f"training_set: ignored {others} other entries (" in capsys.readouterr().err


def test_a_link_to_another_identity_is_left_out_and_reported(training, tmp_path, capsys):
    build(options(training, tmp_path / "clean"))
    (training / "0link").symlink_to(str(FIRST))
    (training / "loop").symlink_to(".")
    capsys.readouterr()
    build(options(training, tmp_path / "out"))
    assert contents(tmp_path / "out") == contents(tmp_path / "clean")
    told = f"ignored 2 other entries (0link (the same folder as {FIRST}), loop (the same folder as training_set))"
    assert told in capsys.readouterr().err


def test_names_that_differ_by_normal_form_alone_are_one_name(training, tmp_path):
    for path in training.glob("*"):
        shutil.rmtree(path)
    data = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    for form, image in [("NFC", "1"), ("NFD", "2"), ("NFD", "3"), ("NFC", "3"), ("NFC", "\u00e9"), ("NFC", "e\u0301")]:
        folder = training / unicodedata.normalize(form, "Ren\u00e9e")
        folder.mkdir(exist_ok=True)
        (folder / f"{image}.png").write_bytes(data)
    (training / "Zoe").mkdir()
    (training / "Zoe" / "1.png").write_bytes(data)
    exclude = tmp_path / "exclude.txt"
    exclude.write_text(unicodedata.normalize("NFD", "Ren\u00e9e/1"))
    build(options(training, tmp_path / "out", exclude=exclude))
    rows = rows_of(tmp_path / "out")
    found = Counter((row["label"], row["status"]) for row in rows)
    assert found == {(0, "ok"): 3, (0, "excluded"): 1, (0, "duplicate-key"): 2, (1, "ok"): 1}
    assert Manifest.read(tmp_path / "out").identities == 2
    (first, second) = sorted(row["error_message"] for row in rows if row["status"] == "duplicate-key")
    assert first.endswith("by its extension or Unicode form alone")
    assert second.endswith("by its extension or Unicode form alone")
