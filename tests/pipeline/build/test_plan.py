"""Which of several rows with one key is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.build.plan import make_plan
from pipeline.sources.file_readers import ListedImages
from pipeline.sources.source import Rows


def table_of(keys, problems):
    return Rows(
        keys=pa.array(keys),
        reader=ListedImages(Path()),
        parts={},
        problems={row: ("bad-landmarks", reason) for row, reason in problems.items()},
        duplicate_of=lambda row: f"given before, in row {row + 1}",
    )


@pytest.mark.parametrize("chunk_rows", [1, 3, 200_000])
@pytest.mark.parametrize("seed", range(4))
def test_the_first_usable_row_of_a_key_is_used(monkeypatch, chunk_rows, seed):
    monkeypatch.setattr("pipeline.build.plan.CHUNK_ROWS", chunk_rows)
    rng = np.random.default_rng(seed)
    keys = [f"n{person}/{image}" for person, image in rng.integers(4, size=(60, 2))] + ["odd", "odd"]
    problems = {int(row): "P1X is missing" for row in rng.choice(60, 15, replace=False)}
    table = table_of(keys, problems)
    expected = dict.fromkeys(problems, ("bad-landmarks", "P1X is missing"))
    expected |= dict.fromkeys((60, 61), ("bad-key", "the name is not identity/image"))
    seen = {}
    for row, key in enumerate(keys):
        if row not in expected and seen.setdefault(key, row) != row:
            expected[row] = ("duplicate-key", f"given before, in row {seen[key] + 1}")
    made = make_plan(table)
    assert sum(status == "duplicate-key" for status, _ in expected.values()) > 10
    assert made.rejected == expected
    assert made.identities.to_pylist() == [key.split("/")[0] for key in keys]


def test_a_table_without_a_usable_row():
    assert make_plan(table_of(["odd"], {})).rejected == {0: ("bad-key", "the name is not identity/image")}


@pytest.mark.parametrize(
    ("key", "stored"),
    [
        ("faces/VGGFace2/n1/1", "n1/1"),
        ("../VGGFace2/n1/1", "n1/1"),
        ("C:/faces/n1/1", "n1/1"),
        (".cache/faces/n1/1", "n1/1"),
        ("..a/n1/1", "n1/1"),
    ],
)
def test_the_last_two_parts_of_a_path_are_the_key(key, stored):
    made = make_plan(table_of([key, "n2/2"], {}))
    assert (made.keys.to_pylist(), made.rejected) == ([stored, "n2/2"], {})
    assert made.identities.to_pylist() == ["n1", "n2"]


NO_NAME, SYSTEM = "the name is not identity/image", "a hidden or system folder or file"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("1", NO_NAME),
        ("../1", NO_NAME),
        ("../../n1/1", NO_NAME),
        ("n1/../1", NO_NAME),
        ("a/b/../1", NO_NAME),
        ("n1/a\0b", NO_NAME),
        (".thumbs/1", SYSTEM),
        ("n1/._1", SYSTEM),
        ("faces/n1/.ipynb_checkpoints/1", SYSTEM),
        ("faces/@eaDir/1", SYSTEM),
        ("__MACOSX/1", SYSTEM),
        ("n1/Thumbs.db", SYSTEM),
    ],
)
def test_hidden_and_system_names_are_bad_keys(key, reason):
    made = make_plan(table_of([key, "n2/2", "@eaDirs/1", "n1/@tmp1"], {}))
    assert made.rejected == {0: ("bad-key", reason)}


EXCLUSIONS = {
    "n4": [0, 1],
    "n4/": [0, 1],
    "./n4": [0, 1],
    "./n4/": [0, 1],
    "train/n4/": [0, 1],
    "VGGFace2/train/n4": [0, 1],
    "/faces/VGGFace2/n4": [0, 1],
    "C:\\faces\\n4": [0, 1],
    "faces/n4/": [0, 1],
    "n4\\": [0, 1],
    "./n4/5.jpg": [0],
    "/faces/train/n4/5.JPG": [0],
    "n4\\5.tif": [0],
    "n4/5": [0],
    "n4/7": [],
    "./n4/7.jpg": [],
    "faces/n4/7.jpg": [],
    "a.tif": [3],
    "Ren\u00e9": [4],
    "Rene\u0301/1": [4],
}


@pytest.mark.parametrize(("entry", "rows"), EXCLUSIONS.items())
def test_exclusions_may_be_paths(entry, rows):
    keys = ["n4/5", "n4/6", "7/1", "a.tif/1", "Rene\u0301/1", "n5/1"]
    made = make_plan(table_of(keys, {}), exclude=[entry])
    assert [row for row, (status, _) in made.rejected.items() if status == "excluded"] == rows
    assert len(made.unmatched_exclusions) == (not rows)


def test_one_person_in_two_normal_forms_has_one_label():
    keys = ["Rene\u0301e/1", "Ann/1", "Ren\u00e9e/2", "Zoe/1", "Ren\u00e9e/1"]
    made = make_plan(table_of(keys, {}), min_images=1)
    assert made.labels.tolist() == [1, 0, 1, 2, 1]
    assert {row: status for row, (status, _) in made.rejected.items()} == {4: "duplicate-key"}
    assert made.keys.to_pylist() == keys
    assert made.identity_count == 3


def test_labels_of_decomposed_names_follow_their_bytes():
    """As before normal forms were compared: a build that was begun then is resumed with the same labels."""
    keys = ["Re\u0301/1", "Rf/1", "Rz/1"]
    assert make_plan(table_of(keys, {})).labels.tolist() == [0, 1, 2]
    assert make_plan(table_of([keys[0].replace("e\u0301", "\u00e9"), *keys[1:]], {})).labels.tolist() == [2, 0, 1]
