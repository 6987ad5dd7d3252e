"""bench pairs: the scores of lists of image files, against those of LFW's own protocol."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.datasets.lfw import read_lfw
from benchmarks.datasets.pair_list import read_pair_list
from benchmarks.datasets.pair_set import read_pair_set
from benchmarks.engine.runner import Engine
from benchmarks.errors import ProtocolError
from benchmarks.report.page import is_report_file, write_report
from benchmarks.report.tables import result_text
from benchmarks.scoring.comparison import compare_networks, read_networks
from pipeline.sources.source import SourceError
from pipeline.spec import Preprocessing
from pipeline.tables.landmark_table import LandmarkError
from tests.benchmarks.datasets.lists import read_list, score_pairs, written
from tests.benchmarks.runs import Noisy, Recorder, cosine, write_result
from tests.networks import save_small
from tests.processes import error_of


def test_lists_score_as_lfw_with_its_intervals(lfw, rows, tmp_path):
    reference = score_pairs(read_lfw(lfw))
    names = {name: name.replace("@128", "@full") for name in reference.metrics}
    assert len(names) == 36
    shutil.copyfile(lfw / "pairs.txt", tmp_path / "pairs.txt")
    for path, intervals in ((written(tmp_path / "pairs.csv", rows), True), (tmp_path / "pairs.txt", False)):
        result = score_pairs(read_list(path, lfw), intervals=intervals)
        assert {name: result.metrics[mine] for name, mine in names.items()} == reference.metrics
        assert not intervals or {name: result.intervals[mine] for name, mine in names.items()} == reference.intervals
        assert result.counts["images"] == reference.counts["images"]
        assert (result.benchmark, result.title, result.main) == ("pairs", path.name, "accuracy@8")
        assert result.data == str(path)
        people = "as the folders of the images say, which fit all pairs" if intervals else "named by the list"
        assert result.notes == [
            "folds: ten contiguous parts of the list" if intervals else "folds: 10, as the list states",
            f"intervals: bootstrap over 8 identities, {people}",
        ]


def test_pairs_of_one_kind_few_pairs_and_a_wrong_root_are_errors(lfw, rows, tmp_path, capsys):
    same = [row for row in rows if row[2]]
    for chosen, message in ((same, f"{len(same)} pairs, {len(same)} of them genuine"), (rows[:9], "9 pairs, ")):
        with pytest.raises(ProtocolError, match=f"{message}.*expected at least 10, genuine ones and others"):
            read_list(written(tmp_path / "a.csv", chosen), lfw)
    path = written(tmp_path / "a.csv", rows)
    with pytest.raises(ProtocolError, match=r"holds none of the \d+ images of .*a.csv, such as "):
        read_pair_set(path, root=tmp_path)
    with pytest.raises(ProtocolError, match="none: not a folder; --root names the folder of the images in"):
        read_pair_set(path, root=tmp_path / "none")
    read_pair_list(written(tmp_path / "a.csv", [*rows, rows[3], (rows[3][1], rows[3][0], *rows[3][2:])]), lfw / "lfw")
    assert f"2 pairs given again, such as pair {len(rows) + 1}; each counts as often" in capsys.readouterr().err


def test_a_list_that_is_sorted_by_kind_has_both_kinds_in_each_fold(lfw, rows, tmp_path):
    ordered = sorted(rows, key=lambda row: -row[2])
    protocol = read_list(written(tmp_path / "a.csv", ordered), lfw)
    assert "sorted by kind" in protocol.notes[0]
    genuine = protocol.genuine
    for kind in (genuine, ~genuine):
        parts = [
            part for fold, rows in enumerate(np.array_split(np.flatnonzero(kind), 10)) for part in [fold] * len(rows)
        ]
        assert sorted(parts) == sorted(protocol.folds[kind].tolist()) == protocol.folds[kind].tolist()
    stated = read_list(written(tmp_path / "a.csv", ordered, "{0},{1},{2},{3}\n"), lfw)
    assert stated.notes[0] == "folds: 10, as the list states"
    assert stated.folds.tolist() == [row[3] for row in ordered]


def test_without_folders_of_people_genuine_pairs_join_images(lfw, rows, tmp_path):
    names = {
        name: f"{number:03d}.jpg" for number, name in enumerate(sorted({name for row in rows for name in row[:2]}))
    }
    for name, flat in names.items():
        os.symlink(lfw / "lfw" / name, tmp_path / flat)
    flat = [(names[first], names[second], same, fold) for first, second, same, fold in rows]
    protocol = read_pair_set(written(tmp_path / "a.csv", flat), aligned="none", sizes=())
    assert "groups of images that genuine pairs join" in protocol.notes[1]
    same = protocol.identities[:, 0] == protocol.identities[:, 1]
    np.testing.assert_array_equal(same, protocol.genuine)
    assert list(protocol.members) == ["{}@full"]
    assert score_pairs(protocol, intervals=False).main == "accuracy@full"


def test_scores_are_cosines_of_the_chosen_sizes(lfw, rows, tmp_path):
    """A naive oracle: every side is prepared and embedded by itself."""
    protocol = read_list(written(tmp_path / "a.csv", rows), lfw, sizes=(6, 30))
    assert list(protocol.members) == ["{}@6", "{}@30", "{}@full", "lr-lr/{}@6", "lr-lr/{}@30"]
    result, engine = score_pairs(protocol, intervals=False), Engine(embed=Recorder())
    for setting, downs in {"{}@6": (None, 6), "lr-lr/{}@30": (30, 30), "{}@full": (None, None)}.items():
        for row in (0, len(rows) // 2, len(rows) - 1):
            sides = [protocol.requests[request] for request in protocol.members[setting][row]]
            assert [side.down for side in sides] == list(downs)
            assert [str(side.path.relative_to(lfw / "lfw")) for side in sides] == list(rows[row][:2])
            vectors = [Recorder()(np.stack(_prepared(side, engine.spec)))[0] for side in sides]
            assert result.settings[setting].scores[row] == pytest.approx(cosine(*vectors), abs=1e-5)
    with pytest.raises(ProtocolError, match="degrades images to 200 px, more than the network's input of 128 px"):
        score_pairs(read_list(tmp_path / "a.csv", lfw, sizes=(200,)))
    for sizes in ((0,), (8, 8), (5000,)):
        with pytest.raises(ProtocolError, match="expected different sizes of 1 to 1024 px"):
            read_list(tmp_path / "a.csv", lfw, sizes=sizes)


def _prepared(request, spec):
    from pipeline.prepare import prepare

    return prepare(request.read(), [request], spec)


def test_each_image_is_embedded_once_a_size_however_many_pairs_show_it(lfw, rows, tmp_path):
    protocol = read_list(written(tmp_path / "a.csv", rows * 3), lfw, sizes=(8,))
    seen = Recorder()
    result = score_pairs(protocol, seen, intervals=False)
    distinct = {name for row in rows for name in row[:2]}
    assert result.counts["embedded"] == len(seen.images) == 2 * len(distinct)
    assert result.counts["pairs"] == 3 * len(rows)


def test_low_rates_appear_with_the_pairs_that_resolve_them(tmp_path):
    from benchmarks.datasets.pair_set import _rates

    for impostors, rates in ((3000, 2), (99_999, 2), (100_000, 3), (10**6, 4), (10**7, 5)):
        assert len(_rates(np.arange(impostors + 5) < 5)) == rates


def test_how_images_are_aligned_has_to_be_said(lfw, rows, tmp_path):
    path = written(tmp_path / "a.csv", rows)
    said = read_pair_set(path, root=lfw / "lfw")
    with pytest.raises(
        ProtocolError, match=r"was trained on aligned faces \(template seed\): say how the images are al"
    ):
        score_pairs(said)
    assert score_pairs(said, spec=Preprocessing.unaligned(), intervals=False).metrics["auc@full"] > 0
    whole = read_pair_set(path, "none", root=lfw / "lfw")
    assert score_pairs(whole, intervals=False).metrics["auc@full"] > 0
    with pytest.raises(ProtocolError, match="trained on unaligned images only"):
        score_pairs(read_pair_set(path, "seed", root=lfw / "lfw"), spec=Preprocessing.unaligned())
    with pytest.raises(SourceError, match="--aligned mine: no such template or file"):
        read_pair_set(path, "mine", root=lfw / "lfw")
    with pytest.raises(ProtocolError, match="aligned crops need no landmarks"):
        read_list(path, lfw, aligned="seed")
    (tmp_path / "other.csv").write_text("x/y,1,2,3,4,5,6,7,8,9,90\n")
    with pytest.raises(LandmarkError, match="no landmarks for any of"):
        read_pair_set(path, root=lfw / "lfw", landmarks=[tmp_path / "other.csv"])


def test_more_people_than_a_bootstrap_takes_are_an_error(lfw, rows, tmp_path, monkeypatch):
    path = written(tmp_path / "a.csv", rows)
    people = len({Path(name).parent for row in rows for name in row[:2]})
    monkeypatch.setattr("benchmarks.datasets.own_images.MAX_IDENTITIES", people)
    read_list(path, lfw, sizes=())
    monkeypatch.setattr("benchmarks.datasets.own_images.MAX_IDENTITIES", people - 1)
    with pytest.raises(ProtocolError, match=f"a.csv: {people} people, expected at most {people - 1}; divide it"):
        read_list(path, lfw, sizes=())


def test_unusable_images_have_reasons_and_leave_pairs_out(demo, rows, tmp_path, capsys):
    lfw = demo("LFW")
    names = sorted({name for row in rows for name in row[:2]})
    (lfw / "lfw" / names[0]).unlink()
    (lfw / "lfw" / names[1]).write_bytes(b"nonsense")
    table = (lfw / "LFW.csv").read_text().splitlines()
    kept = [line for line in table if not line.startswith(f"{names[2]},")]
    double = next(line for line in table if line.startswith(f"{names[3]},"))
    (lfw / "LFW.csv").write_text("\n".join([*kept, f"{double}1"]) + "\n")
    assert len(kept) == len(table) - 1
    protocol = read_list(written(tmp_path / "a.csv", rows), lfw)
    with pytest.raises(ProtocolError, match="4 unusable images, listed above"):
        score_pairs(protocol)
    listed = capsys.readouterr().err
    for name, reason in zip(
        names[:4], ("not found", "cannot be decoded", "no landmarks in", "duplicate landmarks in"), strict=True
    ):
        assert f"{lfw}/lfw/{name}: {reason}" in listed
    partial = score_pairs(protocol, allow_missing=True, intervals=False)
    assert len(partial.missing) == 4
    assert partial.counts["left_out"] == sum(bool({*row[:2]} & set(names[:4])) for row in rows)


def test_only_results_of_the_same_protocol_are_compared(lfw, rows, tmp_path):
    path = written(tmp_path / "a.csv", rows)
    first = write_result(tmp_path / "a.json", score_pairs(read_list(path, lfw, sizes=()), intervals=False))
    other = write_result(tmp_path / "b.json", score_pairs(read_list(path, lfw, sizes=()), Noisy(500), intervals=False))
    (comparison,) = compare_networks(read_networks([first, other]))[0]
    assert comparison.results[1].metrics["auc@full"] < comparison.results[0].metrics["auc@full"] - 0.05
    fewer = written(tmp_path / "c.csv", rows[:-1])
    unaligned = read_pair_set(path, "none", root=lfw / "lfw", sizes=())
    for changed in (read_list(fewer, lfw, sizes=()), read_list(path, lfw, sizes=(8,)), unaligned):
        third = write_result(tmp_path / "c.json", score_pairs(changed, intervals=False))
        with pytest.raises(ProtocolError, match="scored on other pairs or probes"):
            compare_networks(read_networks([first, third]))


def test_swapped_truth_values_are_reported(lfw, rows, tmp_path):
    swapped = [(first, second, 1 - same, fold) for first, second, same, fold in rows]
    texts = [
        result_text(score_pairs(read_list(written(tmp_path / "a.csv", one), lfw, sizes=()))) for one in (rows, swapped)
    ]
    assert ["The AUC at full size is below chance: does the list say 0" in text for text in texts] == [False, True]


def test_the_command(run, lfw, rows, tmp_path, monkeypatch):
    save_small(tmp_path / "x.pt")
    path = written(tmp_path / "mine.csv", rows)
    words = ["--checkpoint", tmp_path / "x.pt", "--root", lfw / "lfw"]
    table = ["--landmarks", lfw / "LFW.csv"]
    done = run("bench", "pairs", path.name, *words, *table, "--sizes", "8,16", "--json", tmp_path / "a.json")
    assert done.returncode == 0, done.stderr
    assert "mine.csv: HR to LR, accuracy, %" in done.stdout
    assert "16 px  full size" in done.stdout
    assert f"data: {path} (generated faces)" not in done.stdout
    assert f"data: {path}" in done.stdout
    assert "folds: ten contiguous parts of the list" in done.stdout
    full = run("bench", "pairs", path, *words, *table, "--sizes", "full")
    assert "mine.csv: full size, %" in full.stdout
    assert "px" not in full.stdout
    line = error_of(run("bench", "pairs", path, *words))
    assert line.startswith(f"Error: bench pairs: {tmp_path}/x.pt was trained on aligned faces (template seed): say how")
    line = error_of(run("bench", "pairs", path, *words, *table, "--aligned", "seed"), code=2)
    assert line == "Error: --landmarks and --aligned: aligned crops need no landmarks; leave one of them out"
    line = error_of(run("bench", "pairs", path, *words, "--sizes", "8;9"), code=2)
    assert line == "Error: Invalid value for '--sizes': '8;9': expected sizes in px, such as 8,12,16,20, or full"
    (tmp_path / "cfp.bin").touch()
    line = error_of(run("bench", "pairs", "cfp.bin", *words))
    assert line == "Error: cfp.bin: holds its images, which are aligned crops; leave out root and landmarks"


@pytest.mark.heavy
def test_the_report(lfw, rows, tmp_path):
    result = score_pairs(read_list(written(tmp_path / "a <b>.csv", rows), lfw, sizes=(8, 16)))
    page = write_report([result], tmp_path / "report")
    names = {entry.name for entry in page.parent.iterdir()}
    assert {"report.html", "pairs.json", "pairs-roc.png", "pairs-resolution.png", "pairs-hardest-full.png"} <= names
    assert all(map(is_report_file, names))
    assert "a &lt;b&gt;.csv" in page.read_text()
