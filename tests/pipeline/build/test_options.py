"""Options that cannot be, and those that differ from an earlier build's."""

from __future__ import annotations

import os

import numpy as np
import pytest

from pipeline.build import build, options_for
from pipeline.sources.listing import SourceError
from pipeline.spec import Preprocessing
from shards.errors import LrfrError, ShardError
from shards.schema import Manifest
from shards.verify import verify
from tests.pipeline.build.made import CSV, contents, csv_lines, write_csv
from tests.shard_sets import build_options


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
    assert not (tmp_path / "out").exists()


def test_options_that_reject_every_image_write_nothing(vggface2, tmp_path):
    with pytest.raises(
        ShardError, match=r"no image is left to store \(45 too-few-images, such as n0\S+: .+\); nothing was written"
    ):
        build(build_options(vggface2, tmp_path / "out", min_images=99))
    assert not (tmp_path / "out").exists()
    build(build_options(vggface2, tmp_path / "out", min_images=2))


def test_a_file_in_place_of_the_output_folder_is_refused(vggface2, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ShardError, match="out: is a file; choose a folder for --out"):
        build(build_options(vggface2, tmp_path / "out"))


def test_an_output_folder_that_links_to_nowhere_is_refused(vggface2, tmp_path):
    (tmp_path / "out").symlink_to("unmounted")
    with pytest.raises(ShardError, match="out: a link to unmounted, which is not there; create that folder"):
        build(build_options(vggface2, tmp_path / "out"))
