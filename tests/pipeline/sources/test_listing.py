"""Image lists of folders: links to folders, and what is left out."""

from __future__ import annotations

import pytest

from pipeline.images import lookup
from pipeline.sources.listing import list_images


@pytest.fixture
def root(tmp_path):
    """Two people with two images each."""
    for name in ("p1/a.jpg", "p1/b.jpg", "p2/a.jpg", "p2/b.jpg"):
        (tmp_path / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces" / name).touch()
    return tmp_path / "faces"


def names_of(folder):
    return [name.as_py().decode() for name in list_images(folder).names]


def test_links_to_another_identity_or_to_the_root_are_left_out(root):
    expected = names_of(root)
    (root / "0").symlink_to("p2")  # sorts before the folder that it leads to
    (root / "loop").symlink_to(".")
    (root / "z").symlink_to(root / "p1", target_is_directory=True)
    (root / "z2").symlink_to("z")
    (root / "notes.txt").touch()
    assert names_of(root) == expected
    assert list_images(root).others == [
        "0 (the same folder as p2)",
        "loop (the same folder as faces)",
        "z (the same folder as p1)",
        "z2 (the same folder as p1)",
        "notes.txt",
    ]


def test_a_set_assembled_by_links_is_listed_as_its_folders_are(root):
    linked = root.parent / "linked"
    linked.mkdir()
    for person in root.iterdir():
        (linked / person.name).symlink_to(person)
    (linked / "q").symlink_to(root / "p1")  # a second link to one folder: its images would be doubled
    assert list_images(linked).digest == list_images(root).digest
    assert list_images(linked).others == ["q (the same folder as p1)"]


@pytest.mark.parametrize(("links", "looked_up"), [([], []), (["q"], [".", "p1", "p2", "q"])])
def test_folders_are_looked_up_only_beside_links_and_images_never(root, monkeypatch, links, looked_up):
    for link in links:
        (root / link).symlink_to("p1")
    paths = []
    monkeypatch.setattr(lookup, "_on_disk", lambda path, real=lookup._on_disk: paths.append(path) or real(path))
    list_images(root)
    assert [str(path.relative_to(root)) for path in paths] == looked_up
