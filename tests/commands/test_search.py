"""The commands search and calibrate, and embed with identities: from folders of faces to likelihood ratios."""

from __future__ import annotations

import csv
import os
import re

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from benchmarks.search.calibration import read_calibration
from tests.benchmarks.search.vectors import people_vectors, table_of, units
from tests.networks import save_small
from tests.processes import error_of


@pytest.fixture
def tables(tmp_path):
    """A gallery of one image for each of 40 people, and three probes of each."""
    vectors, who = people_vectors(40, 4, 32, 0.7)
    first = np.arange(len(who)) % 4 == 0
    names = [
        f"{'gallery' if one else 'probes'}/{person:02d}/{row}.jpg"
        for row, (person, one) in enumerate(zip(who, first, strict=False))
    ]
    for name, chosen in (("gallery", first), ("probes", ~first)):
        rows = np.flatnonzero(chosen)
        table = table_of(vectors[rows], paths=[names[row] for row in rows], identities=who[rows])
        pq.write_table(table, tmp_path / f"{name}.parquet")
    return ["gallery.parquet", "probes.parquet"]


def test_from_folders_of_faces_to_a_ranking(run, tmp_path, painted):
    save_small(tmp_path / "x.pt")
    for person, shots in list(painted.items())[:4]:
        for number, (pixels, _) in enumerate(shots):
            path = tmp_path / ("gallery" if number < 2 else "probes") / person / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), pixels[..., ::-1])
    (tmp_path / "gallery" / "n000003" / "0.png").write_bytes(b"")
    (tmp_path / "probes" / "n000001" / "2.png").write_bytes(b"")
    network = ["--network", "x.pt", "--no-cache", "--device", "cpu"]
    done = run("embed", "gallery", "--out", "g.parquet", "--group", "folder", "--weights", "norm", *network)
    assert done.stdout == "embedded 7 of 8 images in 4 templates: g.parquet\n"
    assert done.stderr.splitlines()[-1] == "unusable: 1 of 8 images; see the column unusable"
    done = run("embed", "probes", "--out", "p.parquet", "--identity", "folder", *network)
    assert done.stdout == "embedded 11 of 12 images: p.parquet\n"
    done = run("search", "g.parquet", "p.parquet", "--out", "m.parquet", "--top", 2, "--csv", "m.csv")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "probes: 1 row without embedding, see their status and error_message"
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"first of 23 rows +rank +gallery +score +log10 LR", lines[0])
    assert lines[2].split() == ["probes/n000001/2.png", "-", "unusable-image", "-", "-"]
    assert lines[-1] == "11 probes in a gallery of 4: m.parquet"
    found = pd.read_parquet(tmp_path / "m.parquet")
    assert set(found["identity"].dropna()) <= set(list(painted)[:4])
    assert found["probe_identity"].tolist() == found["probe"].str.split("/").str[1].tolist()
    with open(tmp_path / "m.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["probe"] for row in rows] == found["probe"].tolist()
    assert [float(row["score"]) for row in rows[1:]] == pytest.approx(found["score"][1:].tolist(), abs=1e-6)
    assert rows[0]["score"] == rows[0]["gallery"] == ""


def test_a_calibration_gives_likelihood_ratios(run, tables, tmp_path):
    done = run("calibrate", *tables, "--out", "c.json")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "gallery.parquet and probes.parquet: 120 genuine pairs of 40 people and 4,680 impostor pairs"
    assert re.fullmatch(r"Cllr 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\] for people held out, minimum 0\.\d{3} \(.*\)", lines[1])
    assert lines[-1] == "calibration: c.json"
    done = run("search", *tables, "--out", "m.parquet", "--calibration", "c.json", "--top", 40)
    assert done.returncode == 0, done.stderr
    assert re.search(r"gallery/00/0\.jpg +0\.\d{4} +\+\d\.\d\d \[\+\d\.\d\d, \+\d\.\d\d\]", done.stdout)
    assert "calibration: gallery.parquet and probes.parquet: 120 genuine pairs of 40 people and 4,680" in done.stdout
    found = pd.read_parquet(tmp_path / "m.parquet")
    ratios = read_calibration(tmp_path / "c.json").fitted.ratios(found["score"].to_numpy())
    np.testing.assert_allclose(found["log10_lr"], ratios.log10, atol=1e-5)
    assert (found["log10_lr_low"] <= found["log10_lr"]).all()
    assert (found["log10_lr"] <= found["log10_lr_high"]).all()
    mated = found["identity"] == found["probe_identity"]
    assert found["log10_lr"][mated].median() > 1
    assert found["log10_lr"][~mated].median() < -1
    assert run("calibrate", *tables, "--out", "d.json").stdout.replace("d.json", "c.json").splitlines() == lines


def test_files_may_have_awkward_names(run, tables, tmp_path):
    names = [os.fsdecode(b"g:\xff \xc3\xa4.parquet"), "p:1.parquet", "m:1.parquet", "m:1 \u4e2d.csv", "-c.json"]
    for old, new in zip(tables, names, strict=False):
        os.rename(tmp_path / old, tmp_path / new)
    gallery, probes, out, csv_file, calibration = names
    done = run("calibrate", gallery, probes, f"--out={calibration}")
    assert done.returncode == 0, done.stderr
    done = run("search", gallery, probes, "--out", out, "--csv", csv_file, f"--calibration={calibration}")
    assert done.returncode == 0, done.stderr
    assert {entry.name for entry in tmp_path.iterdir()} == set(names)


def test_images_that_differ_from_the_calibration_are_reported(run, tables, tmp_path):
    run("calibrate", *tables, "--out", "c.json")
    table = pq.read_table(tmp_path / "probes.parquet")
    metadata = {**table.schema.metadata, b"down": b"8"}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "small.parquet")
    done = run("search", "gallery.parquet", "small.parquet", "--out", "m.parquet", "--calibration", "c.json")
    assert done.stderr.splitlines()[-1] == (
        "the calibration is of other images: probes: down 8, calibrated with none; its likelihood ratios may be wrong"
    )


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["search", "a.csv", "probes.parquet"], "Error: a.csv: cannot be read (Parquet magic bytes not found"),
        (["search", "none.parquet", "probes.parquet"], "Error: none.parquet: cannot be read (No such file or directory);"),
        (["search", "probes.parquet", "other.parquet"], "Error: probes.parquet and other.parquet: embeddings of 32 and of 8"),
        (["search", *["probes.parquet"] * 2, "--calibration", "a.csv"], "Error: a.csv: not a calibration ("),
        (["search", *["probes.parquet"] * 2, "--index", "pq"], "Error: probes.parquet: 120 embeddings; --index pq is for 10,000"),
        (["calibrate", "a.csv"], "Error: a.csv: not a result written by bench --json ("),
        (["calibrate", "none.json"], "Error: none.json: No such file or directory; expected a bench --json file, or files"),
        (["calibrate", "few.parquet", "--setting", "lfw@8"], "Error: --setting lfw@8: only files of bench --json have settings"),
        (["calibrate", "other.parquet", "other.parquet"], "Error: other.parquet: does not say who is on its images;"),
        (["calibrate", "few.parquet"], "Error: few.parquet and few.parquet: 2 genuine pairs of 2 people and 4 "),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_no_file(run, tables, tmp_path, words, line):
    (tmp_path / "a.csv").write_text("path,embedding\nx.jpg,1\n")
    pq.write_table(table_of(units(3, 8)), tmp_path / "other.parquet")
    pq.write_table(table_of(units(4, 8), identities="aabb"), tmp_path / "few.parquet")
    assert error_of(run(*words, "--out", "new")).startswith(line)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["search", "gallery.parquet", "probes.parquet", "--out", "probes.parquet"],
         "--out probes.parquet: is a file that this command reads; choose another name"),
        (["search", "gallery.parquet", "probes.parquet", "--out", "m", "--csv", "m"], "--csv m: --out names the same file"),
        (["search", "gallery.parquet", "probes.parquet", "--out", "m", "--csv", "photo.jpg"],
         "Invalid value for '--csv': photo.jpg is there and is not a CSV file of matches"),
        (["calibrate", "a", "b", "c", "--out", "m"], "expected a bench --json file, or one or two files of embed, found 3"),
        (["calibrate", "r.json", "--out", "r.json"], "--out r.json: is a file that this command reads; choose another name"),
        (["search", "gallery.parquet", "probes.parquet", "--out", "m", "--calibration", "m"],
         "--out m: is a file that this command reads"),
        (["embed", ".", "--landmarks", "probes.parquet", "--out", "./probes.parquet"],
         "--out probes.parquet: is a file that this command reads"),
        (["inspect", ".", "--out", "a.html", "--report", "a.html"], "--report a.html: --out names the same file"),
        (["embed", ".", "--out", "m", "--group", "folder", "--identity", "folder"], "--identity and --group: templates have"),
        (["embed", ".", "--out", "m", "--weights", "norm"], "--weights: only templates have weights; add --group"),
    ],
)  # fmt: skip
def test_wrong_options_are_usage_errors(run, tables, tmp_path, words, line):
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "r.json").write_text("{}")
    assert error_of(run(*words), 2).startswith(f"Error: {line}")


def test_names_are_shown_escaped_and_no_formula_reaches_a_spreadsheet(run, tmp_path):
    escape = "\x1b]0;owned\x07\n"
    names = [f"=cmd|x!{row}" for row in range(3)]
    pq.write_table(table_of(units(3, 8), paths=names, identities=["+1", "@x", "ok"]), tmp_path / "g.parquet")
    pq.write_table(table_of(units(2, 8, seed=3), paths=[f"{escape}.jpg", "\n=1"]), tmp_path / "p.parquet")
    done = run("search", "g.parquet", "p.parquet", "--out", "m.parquet", "--csv", "m.csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(r"\x1b]0;owned\x07\n.jpg") == 3
    assert done.stdout.replace("\n", "").isprintable()
    with open(tmp_path / "m.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert sorted(row["gallery"] for row in rows[:3]) == [f"'{name}" for name in names]
    assert sorted(row["identity"] for row in rows[:3]) == ["'+1", "'@x", "ok"]
    assert {row["probe"] for row in rows} == {f"{escape}.jpg", "'\n=1"}
    assert sorted(row["gallery"] for row in pq.read_table(tmp_path / "m.parquet").to_pylist()) == sorted(2 * names)
    vectors, who = people_vectors(20, 8, 16, 0.5)
    pq.write_table(table_of(vectors, identities=who), tmp_path / f"{escape}.parquet")
    done = run("calibrate", f"{escape}.parquet", "--out", "c.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.replace("\n", "").isprintable()
