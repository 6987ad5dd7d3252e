"""The folder of a Ray cluster that a build starts itself."""

from __future__ import annotations

import os

import pytest

from pipeline import ray_local


@pytest.fixture
def parent(tmp_path, monkeypatch):
    """Where such folders are made."""
    monkeypatch.setattr(ray_local, "MAX_FOLDER", 1000)
    monkeypatch.setattr(ray_local.tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_folder_of_a_killed_build_goes_and_that_of_a_running_one_stays(parent, monkeypatch):
    monkeypatch.setattr(ray_local, "_removed", lambda folder: None)  # as if the process were killed: its lock ends
    with ray_local._own_folder() as folder:
        (parent / folder / "session").mkdir()
        ray_local.remove_abandoned(parent)
        assert os.listdir(parent) == [os.path.basename(folder)]
    assert os.path.isdir(folder)
    with ray_local._own_folder() as other:
        assert os.listdir(parent) == [os.path.basename(other)]
        assert os.path.basename(other).startswith("lrfr-ray-")


def test_a_build_that_ends_deletes_its_folder(parent):
    with ray_local._own_folder():
        assert len(os.listdir(parent)) == 1
    assert os.listdir(parent) == []


def test_nothing_else_is_deleted(parent):
    (parent / "mine").mkdir()
    (parent / "lrfr-ray-file").touch()
    (parent / "lrfr-ray-link").symlink_to(parent / "mine")
    (parent / "ray-other").mkdir()
    ray_local.remove_abandoned(parent)
    assert sorted(os.listdir(parent)) == ["lrfr-ray-file", "lrfr-ray-link", "mine", "ray-other"]


def test_the_folder_of_another_user_stays(parent, monkeypatch):
    (parent / "lrfr-ray-x").mkdir()
    monkeypatch.setattr(ray_local.os, "geteuid", lambda: os.getuid() + 1)
    ray_local.remove_abandoned(parent)
    assert os.listdir(parent) == ["lrfr-ray-x"]
