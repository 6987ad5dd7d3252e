"""Limits, disks and file systems."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections import namedtuple

import pytest

from commands.diagnosis import machine
from commands.diagnosis.machine import disk_findings, machine_findings
from shards.locks import locked
from tests.commands.diagnosis.probes import of

Usage = namedtuple("Usage", "total used free")


def test_this_machine():
    found = list(machine_findings())
    assert any("cores usable" in text for text in of(found, "ok"))
    assert of(found, "FAIL") == []


def test_few_open_files(monkeypatch):
    monkeypatch.setattr(machine.resource, "getrlimit", lambda what: (256, 4096))
    assert "at most 256 open files" in of(machine_findings(), "warn")


def test_little_shared_memory(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(64 << 20, 0, 64 << 20))
    assert any(text.startswith("shared memory: 0.07 GB free of 0.07 GB") for text in of(machine_findings(), "note"))


def test_a_container_with_few_cores(monkeypatch):
    monkeypatch.setattr(machine, "_cpu_quota", lambda: 0.5)
    found = list(machine_findings())
    assert "limited to 0.5 by its control group" in of(found, "ok")[0]
    assert [finding.remedy for finding in found if "--workers" in finding.text] == ["--workers 1"]


def test_a_disk(tmp_path):
    found = list(disk_findings(tmp_path))
    assert f"{tmp_path} (" in found[0].text
    assert "file locks, and syncing of folders" in of(found, "ok")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12, 10**8))
    assert len(of(disk_findings(tmp_path), "warn")) == 1


def test_a_folder_that_is_not_there_yet(tmp_path):
    (text,) = of(disk_findings(tmp_path / "a" / "b"), "note")
    assert text == f"{tmp_path}/a/b does not exist yet; its file system is that of {tmp_path}"


def test_a_folder_that_another_process_has_locked(tmp_path):
    with locked(tmp_path, "training"):
        assert f"{tmp_path}: another process works here" in of(disk_findings(tmp_path), "note")


def test_a_file_system_without_locks_and_syncing(tmp_path, monkeypatch):
    def lacking(*words):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", lacking)
    monkeypatch.setattr(os, "fsync", lacking)
    (text,) = of(disk_findings(tmp_path), "warn")
    assert text.endswith(": no file locks (No locks available) and folders that cannot be synced")


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert f"{tmp_path} cannot be written: reading works" in of(disk_findings(tmp_path), "note")


def test_a_file_system_that_ignores_case(tmp_path):
    (tmp_path / "Name").touch()
    assert not machine._ignores_case(tmp_path)
    (tmp_path / "nAME").hardlink_to(tmp_path / "Name")
    assert machine._ignores_case(tmp_path)


@pytest.mark.parametrize("path", ["/proc", "/dev/shm"])
def test_types_of_file_systems(path):
    assert machine._file_system(machine.Path(path)) in ("proc", "tmpfs")


def test_files_in_the_page_cache_of_a_container_do_not_count_as_used_memory(monkeypatch, tmp_path):
    """They give way to programs: after a large file was read, little of the limit seems to be left."""
    monkeypatch.setattr(machine, "_CONTROL_GROUP", tmp_path)
    facts = {"memory.max": "900", "memory.current": "890", "memory.stat": "anon 90\ninactive_file 800"}
    for name, text in facts.items():
        (tmp_path / name).write_text(f"{text}\n")
    assert machine._memory() == 810
