"""Lookup of data set files: exact names first, then any case and any image extension."""

from __future__ import annotations

import os
import unicodedata

import pytest

from pipeline.images.lookup import find_entry, find_folder, is_image, names_image
from pipeline.sources.file_readers import ImageFolder, ImageTree


@pytest.fixture
def folder(tmp_path):
    """A folder of empty files by name."""

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def test_an_entry_is_found_in_any_case_and_exactly_if_possible(folder):
    root = folder("Lists/Pairs.TXT", "Lists/pairs.txt")
    assert find_entry(root, "lists/PAIRS.txt") == root / "Lists" / "Pairs.TXT"
    assert find_entry(root, "LISTS/pairs.txt") == root / "Lists" / "pairs.txt"
    assert find_entry(root, "lists/none") is None
    assert find_entry(root / "none", "lists") is None


def test_a_folder_is_the_root_or_in_it_or_in_its_data_set(folder):
    root = folder("TinyFace/TESTING_set/1.jpg")
    found = root / "TinyFace" / "TESTING_set"
    assert [find_folder(path, "tinyface", "Testing_Set") for path in (root, root / "TinyFace", found)] == [found] * 3
    assert find_folder(root, "other", "Testing_Set") is None


def test_images_of_a_folder(folder):
    root = folder("b.JPG", "a-1.png", "a.jpeg", "notes.txt", "x.jpg/inside.jpg")
    (root / "broken.jpg").symlink_to("nowhere")
    (root / "circle.jpg").symlink_to("circle.jpg")
    (root / "linked.jpg").symlink_to("x.jpg")
    images = ImageFolder(root)
    assert [path.name for path in images.images] == ["a-1.png", "a.jpeg", "b.JPG", "broken.jpg", "circle.jpg"]
    assert ImageFolder(root / "none").images == []
    assert ImageFolder(root / "none").find("a.jpg") == root / "none" / "a.jpg"


def test_a_key_names_files_whose_names_are_not_utf8(folder):
    root = folder("Jos\udce9/\udcff.jpg", "Ana/\udcff.jpg")
    tree = ImageTree(root)
    for key, name in (("Jos\\udce9/\\udcff", "Jos\udce9/\udcff.jpg"), ("Ana/\\udcff", "Ana/\udcff.jpg")):
        assert tree.find(key) == root / name


def test_an_identity_is_found_in_any_normal_form_and_in_its_case_alone(folder):
    tree = ImageTree(folder("Bob/1.jpg", "bob/2.jpg", "Ren\u00e9e/1.jpg"))
    found = {
        key: path and path.parent.name
        for key in ("bob/1", "bob/2", "BOB/1", "Rene\u0301e/1")
        for path in [tree.find(key)]
    }
    assert found == {"bob/1": None, "bob/2": "bob", "BOB/1": None, "Rene\u0301e/1": "Ren\u00e9e"}


def test_a_path_names_an_image_by_its_last_part():
    assert [
        name for name in ("./a.jpg", ".\\a.jpg", "../.x/A.PNG", "a/._b.jpg", ".a.jpg", "a.jpg/") if names_image(name)
    ] == [
        "./a.jpg",
        ".\\a.jpg",
        "../.x/A.PNG",
    ]


def test_an_image_is_found_by_name_then_by_stem(folder):
    root = folder("a.JPG", "A.jpeg", "b.bmp", "b.jpg", "c.d.png", "e.jpg.png", "F.webp")
    wanted = {
        "a.JPG": "a.JPG",
        "a.jpeg": "A.jpeg",
        "a.png": "a.JPG",
        "A.png": "A.jpeg",
        "b.png": "b.jpg",
        "B.BMP": "b.bmp",
        "c.d": "c.d.png",
        "e.jpg": "e.jpg",
        "f.jpg": "F.webp",
        "none.jpg": "none.jpg",
    }
    images = ImageFolder(root)
    assert {name: images.find(name).name for name in wanted} == wanted
    assert images.find_stem("e.jpg") == root / "e.jpg.png"
    assert images.find_stem("e") is None


def test_hidden_and_system_files_are_no_images(folder):
    root = folder("a.jpg", "._a.jpg", ".b.jpg", "@eaDir/a.jpg", ".DS_Store", "c.jpg/x", "#recycle/b.jpg")
    images = ImageFolder(root)
    assert [path.name for path in images.images] == ["a.jpg"]
    assert images.find("b.jpg") == root / "b.jpg"  # absent
    assert [is_image(name) for name in ("a.jfif", "a.TIF", "._a.jpg", "a.txt", "jpg")] == [
        True,
        True,
        False,
        False,
        False,
    ]


FORMS = [(file, name) for file in ("NFC", "NFD") for name in ("NFC", "NFD")]


@pytest.mark.parametrize(("file", "name"), FORMS)
def test_names_in_another_normal_form_are_found(folder, file, name):
    person, image = (unicodedata.normalize(file, text) for text in ("Ren\u00e9e \u00c5", "Bj\u00f6rn_0001"))
    root = folder(f"lfw/{person}/{image}.JPG")
    person, image = (unicodedata.normalize(name, text) for text in ("Ren\u00e9e \u00c5", "Bj\u00f6rn_0001"))
    found = find_entry(root, f"LFW/{person.upper()}")
    assert found is not None
    assert found == find_entry(root, f"lfw/{person}")
    assert ImageFolder(found).find(f"{image}.jpg").exists()
    assert ImageFolder(found).find_stem(image.upper()).exists()
    assert ImageTree(root, ("lfw",)).find(f"{person}/{image}").exists()


def test_the_exact_normal_form_is_preferred(folder):
    root = folder("\u00e9.jpg", "e\u0301.jpg", "\u00c9.jpg")
    images = ImageFolder(root)
    names = ["\u00e9.jpg", "e\u0301.jpg", "\u00c9.jpg"]
    assert [images.find(name).name for name in names] == names
    assert images.find("E\u0301.jpg").name == "\u00c9.jpg"


def test_a_tree_of_several_extensions_prefers_jpg(folder):
    root = folder("n1/1.png", "n1/2.JPG", "n1/3.jpg", "n1/3.png", "n1/3.JPG", "n1/4.tiff")
    tree = ImageTree(root)
    found = [tree.find(f"n1/{number}").name for number in (1, 2, 4, 3, 1, 2, 4)]
    assert found[3] in ("3.jpg", "3.JPG")
    assert tree.find("n1/5") is None
    tree = ImageTree(root)
    assert [tree.find(f"n1/{number}").name for number in (3, 1, 3)] == ["3.jpg", "1.png", "3.jpg"]


def test_a_tree_finds_keys_in_the_first_split_that_has_them(folder):
    root = folder("train/n1/1.jpg", "test/n1/1.jpg", "test/n1/2.PNG", "n2/3.JPG", "train/n1/4.jpg/inside")
    tree = ImageTree(root, ("train", "test", ""))
    assert tree.find("n1/1") == root / "train" / "n1" / "1.jpg"
    assert tree.find("n1/2") == root / "test" / "n1" / "2.PNG"
    assert tree.find("n2/3") == root / "n2" / "3.JPG"
    assert tree.find("n1/4") is None


def test_a_tree_reads_regular_files_only(folder):
    root = folder("train/n1/4.jpg/inside")
    (root / "train" / "n1" / "1.PNG").write_bytes(b"content")
    os.mkfifo(root / "train" / "n1" / "2.png")
    (root / "train" / "n1" / "3.jpg").symlink_to("3.jpg")
    tree = ImageTree(root, ("train", ""))
    assert tree.read("n1/1") == b"content"
    for key in ("n1/2", "n1/3", "n1/4", "n9/1"):
        with pytest.raises(FileNotFoundError) as error:
            tree.read(key)
        assert str(error.value) == f"no image {key} under {root} (train)"
