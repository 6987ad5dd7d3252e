"""Builds of training sets without landmarks, whose images are listed and resized whole."""

from __future__ import annotations

import os
import shutil
from collections import Counter

import cv2
import numpy as np
import pytest
from PIL import Image

from commands.build_shards import build_shards
from pipeline.align import fit_similarity, template_points, warp
from pipeline.build import BuildOptions, build
from pipeline.inspect import statistics
from pipeline.load.loader import Loader
from pipeline.prepare import Request, check_supported, prepare
from pipeline.sources.catalog import SOURCES
from pipeline.sources.listing import SourceError, list_images
from pipeline.spec import Preprocessing, spec_of
from shards.errors import ShardError
from shards.index import ShardIndex, ShardReader
from shards.schema import Manifest
from shards.verify import verify
from tests.pipeline.build.made import contents
from tests.pipeline.build.unaligned import FIRST, IMAGES, PEOPLE, SETS, options, picture
from tests.processes import error_of
from tests.shard_sets import rows_of

CUT = "Corrupt JPEG data: premature end of data segment"


@pytest.mark.parametrize("source", SETS)
def test_images_are_resized_as_for_scoring(demo, tmp_path, source):
    dataset, folder = SETS[source]
    root, out = demo / dataset, tmp_path / "out"
    build(options(root, out, source))
    manifest, index = Manifest.read(out), ShardIndex(out)
    assert (manifest.source, manifest.images, manifest.identities) == (source, PEOPLE * IMAGES, PEOPLE)
    assert manifest.preprocessing == Preprocessing(template="none", warp="pillow-bicubic").to_dict()
    assert set(manifest.versions) == {"opencv", "pillow"}
    rows = {row["key"]: row for row in rows_of(out)}
    files = sorted((root / folder).glob("*/*.jpg"))
    assert sorted(rows) == sorted(f"{path.parent.name}/{path.stem}" for path in files)
    with ShardReader(index) as reader:
        for number in range(len(index)):
            key = index.key(number)
            with Image.open(root / folder / f"{key}.jpg") as image:
                assert (rows[key]["width"], rows[key]["height"]) == image.size
                expected = np.asarray(image.resize((128, 128), Image.Resampling.BICUBIC))
            (scored,) = prepare(
                (root / folder / f"{key}.jpg").read_bytes(), [Request(path=root)], Preprocessing.unaligned()
            )
            assert np.array_equal(scored, expected)
            jpeg = cv2.imencode(".jpg", expected[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
            assert reader.image(number) == jpeg
    for row in rows.values():
        assert (row["status"], row["landmarks"], row["matrix"], row["eye_distance"]) == ("ok", None, None, None)
    assert list(verify(out, full=True)) == []


def test_the_loader_reads_the_set(training, tmp_path):
    out = tmp_path / "out"
    build(options(training, out))
    with Loader(ShardIndex(out), batch_size=4) as batches:
        batch = next(iter(batches))
    assert batch.images.shape == (4, 4, 128, 128, 3)
    assert sorted(batch.labels.tolist()) == [0, 1, 2, 3]


def test_every_bad_input_is_a_row_with_a_reason(training, tmp_path, capsys):
    whole = picture(training, 1).read_bytes()
    picture(training, 1).write_bytes(b"")
    picture(training, 2).write_bytes(whole[:-100])
    picture(training, 3).unlink()
    picture(training, 3).symlink_to("nowhere")
    person = training / str(FIRST)
    (person / f"{picture(training, 4).stem}.png").write_bytes(whole)
    (person / "name of bytes \udcff.jpg").write_bytes(whole)
    (person / "folder.jpg").mkdir()
    (person / "Thumbs.db").write_bytes(b"")
    (training / "stray.JPG").write_bytes(whole)
    (training / ("n" * 160)).mkdir()
    (training / ("n" * 160) / "1.jpg").write_bytes(whole)
    build(options(training, tmp_path / "out"))
    rows = rows_of(tmp_path / "out")
    bad = {(row["key"], row["status"]): row["error_message"] for row in rows if row["status"] != "ok"}
    cams = [f"{FIRST}/{picture(training, number).stem}" for number in range(1, 5)]
    assert len(rows) == 20 + 4
    assert bad == {
        (cams[0], "unreadable-image"): "empty file",
        (cams[1], "unreadable-image"): f"damaged JPEG ({len(whole) - 100} bytes): {CUT}",
        (cams[2], "missing-file"): f"no image {cams[2]} under {training}",
        (cams[3], "duplicate-key"): f"differs from {cams[3]}.jpg by its extension alone",
        ("stray", "bad-key"): "the name is not identity/image",
    }
    assert {f"{FIRST}/name of bytes \\udcff", f"{'n' * 160}/1"} <= {row["key"] for row in rows}
    err = capsys.readouterr().err
    assert "24 rows of training_set: 22 images of 5 identities to store" in err
    assert f"training_set: ignored 2 other entries ({FIRST}/Thumbs.db, {FIRST}/folder.jpg)" in err
    assert list(verify(tmp_path / "out", full=True)) == []


def test_exclusion_and_min_images(training, tmp_path):
    exclude = tmp_path / "exclude.txt"
    exclude.write_text(f"{FIRST}\n{FIRST + 1}/{FIRST + 1}_cam1_1.jpg\n")
    for path in list((training / str(FIRST + 2)).iterdir())[2:]:
        path.unlink()
    build(options(training, tmp_path / "out", exclude=exclude, min_images=3))
    rows = rows_of(tmp_path / "out")
    assert Counter(row["status"] for row in rows) == {"ok": 9, "excluded": 6, "too-few-images": 2}
    assert {row["label"] for row in rows if row["status"] == "ok"} == {0, 1}


def test_the_bytes_depend_neither_on_the_executor_nor_on_the_given_root(demo, tmp_path):
    root = demo / "TinyFace"
    build(options(root, tmp_path / "above", "tinyface"))
    build(options(root / "Training_Set", tmp_path / "itself", "tinyface", executor="process", workers=2))
    build(options(demo, tmp_path / "all", "tinyface"))
    assert contents(tmp_path / "above") == contents(tmp_path / "itself") == contents(tmp_path / "all")


def test_a_resumed_build_equals_an_uninterrupted_one(training, tmp_path, monkeypatch):
    build(options(training, tmp_path / "whole"))
    replace, publications = os.replace, 1 + 4 * 4 + 2
    for published in range(publications):
        left = [published]

        def counted(*names, left=left):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            replace(*names)

        out = tmp_path / f"interrupted-{published}"
        monkeypatch.setattr(os, "replace", counted)
        with pytest.raises(KeyboardInterrupt):
            build(options(training, out))
        monkeypatch.setattr(os, "replace", replace)
        assert not (out / "manifest.json").exists()
        build(options(training, out))
        assert contents(out) == contents(tmp_path / "whole")


def test_retry_failed_stores_a_repaired_image(training, tmp_path):
    data = picture(training, 2).read_bytes()
    picture(training, 2).write_bytes(b"")
    build(options(training, tmp_path / "out"))
    picture(training, 2).write_bytes(data)
    build(options(training, tmp_path / "out", retry_failed=True))
    build(options(training, tmp_path / "whole"))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_build_with_different_files_or_options_is_not_resumed(training, tmp_path):
    out = tmp_path / "out"
    build(options(training, out))
    before = contents(out)
    refused = f"{out}: contains a build with different {{}}; choose another --out, or delete this folder first"
    with pytest.raises(ShardError) as error:
        build(options(training, out, min_images=2))
    assert str(error.value) == refused.format("--min-images")
    shutil.copy(picture(training, 1), training / str(FIRST) / "new.jpg")
    with pytest.raises(ShardError) as error:
        build(options(training, out))
    assert str(error.value) == refused.format("files under --root")
    assert contents(out) == before


def test_options_that_do_not_apply_are_refused(training, tmp_path):
    message = "--source qmul: its images are resized whole, not aligned; omit {}"
    for name, changes in [("--landmarks", {"landmarks": (training / "x.csv",)}), ("--template", {"template": "seed"})]:
        with pytest.raises(SourceError) as error:
            options(training, tmp_path / "out", **changes)
        assert str(error.value) == message.format(name)
    with pytest.raises(SourceError, match="source qmul: has no landmarks, so its images cannot be aligned"):
        BuildOptions(
            source="qmul", root=training, landmarks=(), out=tmp_path / "out", preprocessing=Preprocessing(size=112)
        )
    with pytest.raises(ShardError, match="unknown template 'none'; choose from seed, arcface"):
        BuildOptions(root=training, landmarks=(), out=tmp_path / "out", preprocessing=Preprocessing.unaligned())


def test_a_folder_without_a_training_set_or_without_images_is_an_error(tmp_path):
    with pytest.raises(SourceError) as error:
        options(tmp_path, tmp_path / "out", "tinyface")
    assert str(error.value) == (
        f"{tmp_path}: no Training_Set in it; expected TinyFace's training set, Training_Set/<ID>/<image>.jpg"
        " (give its folder with --root, or run: lrfr demo-data)"
    )
    (tmp_path / "TRAINING_set" / "1").mkdir(parents=True)
    (tmp_path / "TRAINING_set" / "1" / "a.heic").touch()
    found = r"no images found among 1 entry \(1/a\.heic\)"
    with pytest.raises(SourceError, match=rf"TRAINING_set: {found}; expected <ID>/<image>\.jpg"):
        build(options(tmp_path, tmp_path / "out"))


@pytest.fixture
def crops(painted, tmp_path):
    """A folder of aligned crops of 112 px, without landmarks."""
    for person, shots in list(painted.items())[:3]:
        (tmp_path / "ms1m" / person).mkdir(parents=True)
        for number, (pixels, landmarks) in enumerate(shots):
            matrix = fit_similarity(landmarks[None], template_points("arcface", 112))[0][0]
            crop = warp(np.ascontiguousarray(pixels[..., ::-1]), matrix, 112)
            cv2.imwrite(str(tmp_path / "ms1m" / person / f"{number}.png"), crop)
    return tmp_path / "ms1m"


def test_aligned_crops_are_stored_as_they_are_with_their_template(crops, tmp_path):
    path = crops / "n000001" / "0.png"
    cv2.imwrite(str(crops / "n000001" / "1.png"), cv2.imread(str(path))[:96])
    out = tmp_path / "out"
    build(options(crops, out, "crops", template="arcface"))
    manifest, index = Manifest.read(out), ShardIndex(out)
    assert (manifest.source, manifest.identities, manifest.statuses) == ("crops", 3, {"not-square": 1, "ok": 14})
    assert manifest.preprocessing == Preprocessing(template="arcface").to_dict()
    (bad,) = (row for row in rows_of(out) if row["status"] != "ok")
    assert (bad["key"], bad["error_message"]) == ("n000001/1", "112x96 px; an aligned crop is square")
    with Image.open(path) as image:
        expected = np.asarray(image.resize((128, 128), Image.Resampling.BICUBIC))[..., ::-1]
    with ShardReader(index) as reader:
        assert reader.image(0) == cv2.imencode(".jpg", expected, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    check_supported(spec_of(manifest), "crops")  # benchmarks align as these crops are
    assert list(verify(out, full=True)) == []
    assert "crops: 128 px, template arcface" in statistics(out)
    assert "shorter side of the source, px:" in statistics(out)


def test_aligned_crops_are_built_with_the_command(run, crops, tmp_path):
    done = run("build-shards", "--source", "crops", "--root", crops, "--out", "out", "--executor", "serial")
    assert error_of(done) == (
        "Error: --source crops: say which template the crops follow: --template arcface (most published crops,"
        " 112 x 112 px) or seed"
    )
    done = run("build-shards", "--source", "crops", "--root", "none", "--template", "arcface")
    assert error_of(done) == "Error: none: not a folder; --root names the folder of --source crops"
    command = ["build-shards", "--source", "crops", "--root", crops, "--template", "seed", "--executor", "serial"]
    assert error_of(run(*command, "--landmarks", "x.csv")).endswith("not aligned; omit --landmarks")
    assert run(*command).returncode == 0
    assert Manifest.read(tmp_path / "shards-crops").preprocessing["template"] == "seed"
    assert "already aligned" in run("build-shards", "--help").stdout
    done = run("build-shards", "--source", "folder", "--root", crops)
    assert error_of(done).endswith("(aligned crops need none: --aligned says which template they follow)")


def test_identities_that_fall_below_the_minimum_while_building_are_named(training, tmp_path, capsys):
    for number in range(2, 6):
        picture(training, number).write_bytes(b"")
    for path in (training / str(FIRST + 1)).iterdir():
        path.write_bytes(b"")
    line = (
        f"--min-images 4: 2 identities fell below it, because images were unusable ({FIRST}: 1, {FIRST + 1}: 0); leave out"
        " by --exclude what you do not want"
    )
    for minimum in (1, 4):
        for _ in range(2):  # also if the set is complete already
            build(options(training, tmp_path / str(minimum), min_images=minimum))
            assert (line in capsys.readouterr().err.splitlines()) == (minimum == 4)
    whole = picture(training, 1).read_bytes()
    for path in training.glob("*/*.jpg"):
        path.write_bytes(whole)
    build(options(training, tmp_path / "whole", min_images=4))
    assert "--min-images" not in capsys.readouterr().err


def test_the_listing_is_sorted_and_its_digest_covers_every_name(tmp_path):
    for name in ("b/2.jpg", "b/10.png", "a/x.jpeg", "a/x.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listed = list_images(tmp_path)
    assert listed.names.to_pylist() == [b"a/x.jpg", b"a/x.jpeg", b"b/10.png", b"b/2.jpg"]
    assert listed.keys.to_pylist() == ["a/x", "a/x", "b/10", "b/2"]
    digest = listed.digest
    (tmp_path / "b" / "2.jpg").rename(tmp_path / "b" / "2.JPG")
    assert list_images(tmp_path).digest != digest


def test_the_command_offers_every_source():
    (choice,) = [parameter.type for parameter in build_shards.params if parameter.name == "source"]
    assert sorted(choice.choices) == sorted(SOURCES)
