"""Generation: the same options give the same bytes; existing and partial data sets."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import cv2
import pytest

import pipeline.demo.generate
from pipeline.demo.generate import DemoDataError, write_demo_data
from pipeline.demo.layouts import LAYOUTS
from pipeline.demo.render import FIRST_TEST_PERSON, render_identity
from shards.errors import LockedError
from shards.files import temporary_path
from shards.locks import locked
from tests.pipeline.demo.sizes import SIZES


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_different_ones(demo, tmp_path, monkeypatch):
    monkeypatch.setattr(
        pipeline.demo.generate, "MIN_PHOTOS_FOR_POOL", 0
    )  # worker processes; the first set was painted in this one
    write_demo_data(tmp_path / "again", **SIZES)
    assert tree(tmp_path / "again") == tree(demo)
    write_demo_data(tmp_path / "other", **{**SIZES, "seed": 2})
    first, other = tree(demo), tree(tmp_path / "other")
    assert list(first) == list(other)
    assert [path for path in first if path.endswith(".jpg") and first[path] == other[path]] == []


@pytest.mark.usefixtures("all_painted")
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_data_set_generated_alone_is_the_same(name, demo, tmp_path):
    write_demo_data(tmp_path, **SIZES, layouts=[name])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert tree(tmp_path / name) == tree(demo / name)


def test_a_data_set_is_durable_before_it_has_its_name(tmp_path, monkeypatch):
    """A power failure after the rename left empty files beside a marker that says all is there."""
    calls = []
    monkeypatch.setattr(os, "sync", lambda: calls.append("sync"))
    replace, sync_folder = os.replace, pipeline.demo.generate.sync_folder
    monkeypatch.setattr(os, "replace", lambda old, new: (calls.append(Path(new).name), replace(old, new)))
    monkeypatch.setattr(
        pipeline.demo.generate, "sync_folder", lambda folder: (calls.append(folder.name), sync_folder(folder))
    )
    write_demo_data(tmp_path / "out", **SIZES, layouts=["TinyFace"])
    assert calls == ["sync", "TinyFace", "out"]


def test_a_second_run_renders_nothing_and_other_options_are_refused(demo, monkeypatch):
    before = tree(demo)
    monkeypatch.setattr(pipeline.demo.generate, "render_identity", None)
    write_demo_data(demo, **SIZES)
    assert tree(demo) == before
    with pytest.raises(DemoDataError, match="VGGFace2: exists and was generated with other options"):
        write_demo_data(demo, **{**SIZES, "seed": 5})


@pytest.mark.parametrize("few", [{"identities": 1}, {"images": 1}])
def test_fewer_than_two_identities_or_images_are_refused(few, tmp_path):
    with pytest.raises(ValueError, match=f"^{next(iter(few))} is 1, expected at least 2"):
        write_demo_data(tmp_path, **{**SIZES, **few})


def test_other_data_are_refused_before_anything_is_written(tmp_path):
    (tmp_path / "TinyFace").mkdir()
    with pytest.raises(DemoDataError, match="TinyFace: exists and is not generated data"):
        write_demo_data(tmp_path, **SIZES)
    assert [path.name for path in tmp_path.iterdir()] == ["TinyFace"]


def test_an_unknown_layout_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(DemoDataError, match=r"^unknown layout 'MegaFace'; choose from VGGFace2, LFW, "):
        write_demo_data(str(tmp_path), **SIZES, layouts=["LFW", "MegaFace"])


@pytest.mark.parametrize(
    ("name", "version"), [("QMUL-SurvFace", ', "faces": 2'), ("LFW", "")], ids=["earlier layout", "earlier faces"]
)
def test_a_data_set_of_an_earlier_version_is_refused(name, version, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "generated.json").write_text(f'{{"identities": 9, "images": 3, "seed": 1{version}}}\n')
    with pytest.raises(DemoDataError, match=rf"{name}: exists and was .* by another version; .* delete it"):
        write_demo_data(tmp_path, **SIZES, layouts=[name])


def test_an_interrupted_run_keeps_finished_data_sets_and_generates_the_others(demo, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline.demo.generate, "render_identity", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_demo_data(tmp_path, **SIZES)
    assert [path.name for path in tmp_path.iterdir()] == ["VGGFace2"]
    killed = temporary_path(tmp_path / "LFW")
    killed.mkdir()
    (killed / "stray.jpg").touch()
    kept = (tmp_path / "VGGFace2" / "train" / "n000001" / "0001_01.jpg").stat().st_mtime_ns
    monkeypatch.undo()
    write_demo_data(tmp_path, **SIZES)
    assert tree(tmp_path) == tree(demo)
    assert (tmp_path / "VGGFace2" / "train" / "n000001" / "0001_01.jpg").stat().st_mtime_ns == kept


def test_a_folder_of_the_user_with_a_name_like_a_temporary_one_is_kept(tmp_path):
    (tmp_path / "LFW.partial").mkdir()
    (tmp_path / "LFW.partial" / "downloaded.jpg").touch()
    write_demo_data(tmp_path, **SIZES, layouts=["LFW"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LFW", "LFW.partial"]
    assert (tmp_path / "LFW.partial" / "downloaded.jpg").exists()


def test_a_link_to_nowhere_is_other_data(tmp_path):
    (tmp_path / "LFW").symlink_to(tmp_path / "unmounted")
    with pytest.raises(DemoDataError, match="LFW: exists and is not generated data"):
        write_demo_data(tmp_path, **SIZES, layouts=["LFW"])
    assert (tmp_path / "LFW").is_symlink()


def test_a_second_process_in_the_same_folder_is_refused(tmp_path):
    with locked(tmp_path, "testing"), pytest.raises(LockedError, match="another process is generating data here"):
        write_demo_data(tmp_path, **SIZES)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_with_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space left") as error:
        write_demo_data(tmp_path, identities=2, images=2, seed=0, layouts=["LFW"])
    assert error.value.filename.startswith(f"{tmp_path}/LFW")
    assert list(tmp_path.iterdir()) == []


def full(path, data):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupted(job):
    if job.person == FIRST_TEST_PERSON + 1:
        raise KeyboardInterrupt
    return render_identity(job)


def test_opencv_keeps_the_threads_that_the_caller_chose(tmp_path):
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        write_demo_data(tmp_path, identities=2, images=2, seed=0, layouts=["LFW"])
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)
