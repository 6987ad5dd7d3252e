"""Archives: only images, nothing outside the folder, all of them or none."""

from __future__ import annotations

import tarfile
import zipfile

import pytest

from pipeline.fetch import unpack
from pipeline.fetch.assets import FetchError
from pipeline.fetch.unpack import unpack_images
from tests.pipeline.fetch.archives import FACES, tar


def pack(path, files, mode=0):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


MAKERS = pytest.mark.parametrize(("make", "name"), [(tar, "a.tgz"), (pack, "a.zip")], ids=["tar", "zip"])


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(archive, folder, text, counts=None):
    with pytest.raises(FetchError) as caught:
        unpack_images(archive, folder / "images", counts)
    assert text in str(caught.value)
    assert [path for path in folder.rglob("*") if path != archive] == []


@MAKERS
def test_people_and_images(tmp_path, make, name, capsys):
    junk = {"lfw/readme.txt": b"x", "__MACOSX/A_B/._A_B_0001.jpg": b"x", "lfw/A_B/.hidden.jpg": b"x", "lfw/empty/": b""}
    archive = make(tmp_path / name, FACES | junk)
    assert unpack_images(archive, tmp_path / "images") == (3, 2)
    assert contents(tmp_path / "images") == {key.removeprefix("lfw/"): value for key, value in FACES.items()}
    assert f"unpack {name}: 3/3 images" in capsys.readouterr().err


@MAKERS
@pytest.mark.parametrize("path", ["../evil/x.jpg", "lfw/../x.jpg", "lfw/../../x/y.jpg", "/etc/lfw/x.jpg", "x.jpg"])
def test_a_path_out_of_the_folder(tmp_path, make, name, path):
    refused(make(tmp_path / name, {**FACES, path: b"x"}), tmp_path, "")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices(tmp_path, kind):
    refused(tar(tmp_path / "a.tgz", {"lfw/A/A_0001.jpg": b""}, type=kind, linkname="lfw/A/B.jpg"), tmp_path, "a.tgz")


def test_a_link_in_a_zip(tmp_path):
    refused(pack(tmp_path / "a.zip", {"lfw/A/A_0001.jpg": b"/etc/passwd"}, 0o120777), tmp_path, "is a link")


@MAKERS
def test_limits(tmp_path, make, name, monkeypatch):
    archive = make(tmp_path / name, FACES)
    monkeypatch.setattr(unpack, "MAX_FILES", 2)
    refused(archive, tmp_path, "one too many")
    monkeypatch.setattr(unpack, "MAX_FILES", 3)
    monkeypatch.setattr(unpack, "MAX_FILE_BYTES", 4)
    refused(archive, tmp_path, "'lfw/C/C_0001.JPG' is a link, a special or a huge file")


@MAKERS
def test_other_counts_than_published(tmp_path, make, name):
    refused(make(tmp_path / name, FACES), tmp_path, "3 images of 2 people, expected 3 images of 3 people", (3, 3))


@MAKERS
def test_damage(tmp_path, make, name):
    archive = make(tmp_path / name, {key: value * 999 for key, value in FACES.items()})
    data = archive.read_bytes()
    for damaged in (data[: len(data) // 2], b"", b"no archive", data[:60] + b"\xff" * 30 + data[90:]):
        archive.write_bytes(damaged)
        refused(archive, tmp_path, "damaged (")


def test_the_same_file_twice(tmp_path):
    archive = tmp_path / "a.tgz"
    with tarfile.open(archive, "w:gz") as pack:
        for _ in range(2):
            pack.addfile(tarfile.TarInfo("lfw/A/A_0001.jpg"))
    with pytest.raises(FileExistsError) as caught:
        unpack_images(archive, tmp_path / "images")
    assert caught.value.filename == str(tmp_path / "images" / "A" / "A_0001.jpg")
    assert not (tmp_path / "images").exists()
