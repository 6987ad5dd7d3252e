"""bench pairs: lists of image files against the same pairs of LFW, and lists that cannot be right."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.datasets.lfw import read_lfw
from benchmarks.datasets.pair_list import read_pair_list
from benchmarks.datasets.pair_set import read_pair_set
from benchmarks.engine.runner import Engine, run
from benchmarks.errors import ProtocolError
from benchmarks.report.page import is_report_file, write_report
from benchmarks.report.tables import result_text
from benchmarks.scoring.comparison import compare_networks, read_networks
from pipeline.sources.source import SourceError
from pipeline.spec import Preprocessing
from pipeline.tables.landmark_table import LandmarkError
from tests.benchmarks.conftest import FACTS, Noisy, Recorder, cosine, write_result
from tests.conftest import error_of
from tests.networks import save_small


def score(protocol, embed=None, spec=None, **options):
    return run(protocol, Engine(embed=embed or Recorder(), spec=spec or Preprocessing()), checkpoint=FACTS, **options)


@pytest.fixture(scope="module")
def lfw(_demo):
    return _demo / "LFW"


@pytest.fixture(scope="module")
def rows(lfw):
    """(first, second, genuine, fold) of LFW's pairs; paths below lfw/."""
    found = read_lfw(lfw)
    names = [str(request.path.relative_to(lfw / "lfw")) for request in found.requests]
    pairs = found.members["{}@128"].tolist()
    return [
        (names[first], names[second], int(same), int(fold))
        for (first, second), same, fold in zip(pairs, found.genuine, found.folds, strict=True)
    ]


def read(path, lfw, **options):
    return read_pair_set(path, root=lfw / "lfw", landmarks=[lfw / "LFW.csv"], **options)


def written(path, rows, form="{0},{1},{2}\n", header=""):
    path.write_text(header + "".join(form.format(*row) for row in rows))
    return path


def test_lists_score_as_lfw_with_its_intervals(lfw, rows, tmp_path):
    reference = score(read_lfw(lfw))
    names = {name: name.replace("@128", "@full") for name in reference.metrics}
    assert len(names) == 36
    shutil.copyfile(lfw / "pairs.txt", tmp_path / "pairs.txt")
    for path, intervals in ((written(tmp_path / "pairs.csv", rows), True), (tmp_path / "pairs.txt", False)):
        result = score(read(path, lfw), intervals=intervals)
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


WORDS = [("1", "0"), ("same", "different"), ("True", "False"), ("genuine", "impostor"), ("1", "-1"), ("1.0", "0.0")]


@pytest.mark.parametrize("number", range(len(WORDS)))
def test_all_ways_of_writing_a_list_are_one(lfw, rows, tmp_path, number):
    """Separators, headers, orders of columns, truth values, encodings and kinds of paths."""
    expected = read_pair_list(written(tmp_path / "x.csv", rows), lfw / "lfw")
    said = [(first, second, WORDS[number][not same], fold) for first, second, same, fold in rows]
    forms = [
        (["{0},{1},{2}\n", "{0}\t{1}\t{2}\n", "{0};{1};{2}\n", "{0} {1} {2}\n", "{2},{0},{1}\n", "{2} {0} {1}\n"], ""),
        (['"{0}","{1}", {2} ,{3}\n', "{0};{1};{2};{3};;\n"], "# pairs\n"),
        (["{0},{1},{2},,\n"], ""),
        (["{0},{1},{2},,\n"], "path1,path2,same,,\n"),
        (["{3}\t{0}\tx\t{2}\t{1}\n"], "Fold\tImage_1\tid\tis_same\tImage_2\n\n"),
        (["{0},{2},{1}\r\n"], "\ufefffirst,label,second\r\n"),
        (["{2},{0},{1}\n"], "target,img1_path,img2_path\n"),
        (["{2};{0};{1}\n"], "match;First Image;Second Image\n"),
        (["./{0},./{1},{2}\n", ".\\{0} .\\{1} {2}\n"], ""),
        ([f"{lfw}/lfw/{{0}},./{{1}},{{2}}\n"], "left,right,match\n"),
    ]
    for lines, header in forms:
        for form in lines:
            found = read_pair_list(written(tmp_path / "y.csv", said, form, header), lfw / "lfw")
            assert found.paths == expected.paths, form
            np.testing.assert_array_equal(found.members, expected.members)
            np.testing.assert_array_equal(found.genuine, expected.genuine)
            assert (found.folds is None) == ("{3}" not in form)
            assert found.folds is None or found.folds.tolist() == [row[3] for row in rows]
    text = written(tmp_path / "z.csv", said).read_text()
    for data in (text.encode("utf-16"), text.replace("/", "\\").encode(), text.replace("\n", "\n\n#\n").encode()):
        (tmp_path / "z.csv").write_bytes(data)
        assert read_pair_list(tmp_path / "z.csv", lfw / "lfw").paths == expected.paths


@pytest.mark.parametrize("header", ["name,imagenum1,imagenum2,", "name;imagenum1;name.1;imagenum2"])
def test_the_header_of_lfw_lists_on_kaggle_is_no_pair(tmp_path, header):
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "A_0001.jpg").touch()
    (tmp_path / "a.csv").write_text(f"{header}\nA,1,2,\nA,1,B,2\n")
    found = read_pair_list(tmp_path / "a.csv", tmp_path)
    assert found.genuine.tolist() == [True, False]
    assert found.people == ["A", "A", "B"]


@pytest.mark.parametrize("kind", [bool, np.int64, float, str])
def test_parquet_holds_truth_values_of_any_type(lfw, rows, tmp_path, kind):
    first, second, same, fold = zip(*rows, strict=True)
    table = pa.table({"path_a": first, "path_b": second, "label": np.array(same).astype(kind), "fold": fold})
    pq.write_table(table, tmp_path / "x.parquet")
    found = read_pair_list(tmp_path / "x.parquet", lfw / "lfw")
    assert found.genuine.tolist() == list(map(bool, same))
    assert found.folds.tolist() == list(fold)


def test_images_are_found_whatever_their_case_extension_and_normal_form(tmp_path):
    root = tmp_path / "root"
    for name in ("Ann\u00e9/A 1.JPG", "bob/x.png", "deep/er/c.tif", "d.jpeg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    pairs = ["anne\u0301/a 1.jpg,Bob/x.jpg,1", "DEEP/er/c,d.jpg,0", "deep/er/c.tif,none/d.jpg,0"]
    (tmp_path / "a.csv").write_text("a,b,same\n" + "\n".join(pairs))
    found = read_pair_list(tmp_path / "a.csv", root).paths
    names = ["Ann\u00e9/A 1.JPG", "bob/x.png", "deep/er/c.tif", "d.jpeg", "none/d.jpg"]
    assert sorted(found) == sorted(root / name for name in names)


@pytest.mark.parametrize(
    "layout",
    ["{name}/{name}_{number:04d}.png", "{name}/{number}.jpg", "all/{name}_{number}.JPG", "{name}/img_{number:02d}.bmp"],
)
@pytest.mark.parametrize("header", ["2\t2\n", "4\n", ""])
def test_names_and_numbers_are_found_in_any_layout(tmp_path, layout, header):
    pairs = [("A B", 1, "A B", 2), ("C", 1, "C", 3), ("A B", 1, "C", 2), ("C", 3, "D_2", 1)] * 2
    for name, number in {(pair[at], pair[at + 1]) for pair in pairs for at in (0, 2)}:
        path = tmp_path / "root" / layout.format(name=name, number=number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    lines = [f"{a}\t{i}\t{j}" if a == b else f"{a}\t{i}\t{b}\t{j}" for a, i, b, j in pairs]
    (tmp_path / "a.txt").write_text(header + "\n".join(lines) + "\n")
    found = read_pair_list(tmp_path / "a.txt", tmp_path / "root")
    names = [(str(found.paths[first]), str(found.paths[second])) for first, second in found.members]
    assert names == [
        tuple(str(tmp_path / "root" / layout.format(name=name, number=number)) for name, number in ((a, i), (b, j)))
        for a, i, b, j in pairs
    ]
    assert found.genuine.tolist() == [a == b for a, _, b, _ in pairs]
    assert (found.folds is None) == (header != "2\t2\n")
    assert found.people[found.members[3, 1]] == "D_2"


def test_a_number_that_two_files_have_is_an_error(tmp_path):
    for folder in ("lfw/A", "lfw-funneled/A"):
        (tmp_path / "root" / folder).mkdir(parents=True)
        (tmp_path / "root" / folder / "A_0001.jpg").touch()
        (tmp_path / "root" / folder / "A_0002.jpg").touch()
    (tmp_path / "a.txt").write_text("A\t1\t2\n")
    with pytest.raises(ProtocolError, match=r"image 1 of A may be .* or .*; name the right folder with --root"):
        read_pair_list(tmp_path / "a.txt", tmp_path / "root")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; expected the header path1,path2,same"),
        ("# nothing\n", "empty; expected the header"),
        ("a,b\n", "line 1: found 'a,b', expected the header"),
        ("a.jpg,b.jpg,perhaps\n", "line 1: found 'a.jpg,b.jpg,perhaps' (no columns path1 and path2), expected"),
        ("path1,path2,x\na.jpg,b.jpg,1\n", "line 1: found 'path1,path2,x' (no column same), expected"),
        ("a.jpg,b.jpg,1\na.jpg,c.jpg,?\n", "pair 2 (a.jpg, c.jpg): found '?', expected 1 or 0, same or different"),
        ("a.jpg,b.jpg,1\na.jpg,c.jpg,2\n", "pair 2 (a.jpg, c.jpg): found '2', expected 1 or 0"),
        ("a.jpg,b.jpg,1\na.jpg,c.jpg\n", "line 2: 2 fields, expected 3"),
        ("a.jpg,b.jpg,1\na.jpg,../c.jpg,0\n", "pair 2: ../c.jpg: leads out of {root}; name a --root that holds all"),
        ("a.jpg,b.jpg,1\n/etc/c.jpg,a.jpg,0\n", "pair 2: /etc/c.jpg: leads out of {root}"),
        ("a.jpg,b.jpg,1\na.jpg,d/../../c.jpg,0\n", "pair 2: d/../../c.jpg: leads out of {root}"),
        ("a.jpg,b.jpg,1\na.jpg,..\\c.jpg,0\n", "pair 2: ../c.jpg: leads out of {root}"),
        ("path1,path2,same\na.jpg,,0\n", "pair 1: no path is stated, expected two paths"),
        ("a.jpg,b.jpg,1\na.jpg,./A.jpg,0\n", "pair 2: {root}/a.jpg twice, expected two images; leave the pair out"),
        (
            "a.jpg,b.jpg,1\nb.jpg,a.jpg,0\n",
            "pairs 1 and 2 are the same two images, one genuine and one not; correct one",
        ),
        ("path1,path2,same,fold\na.jpg,b.jpg,1,\n", "pair 1: no fold; fill the column fold in every row"),
        ("a.jpg,b.jpg,1,3\na.jpg,c.jpg,0,3\n", "the column fold has 1 value"),
        ("2\na 1 2\na 1 b 2\n", "2 pairs, but line 1 states 2 genuine and as many impostor pairs"),
        ("1\na 1 2\na 1 b x\n", "line 3: image numbers are '1' and 'x', expected integers"),
        ("a 1 2\nb 1 2\nc\n", "line 3: 1 field, expected an impostor pair (name, i, name, j)"),
    ],
)
def test_a_list_that_cannot_be_right_names_the_pair(tmp_path, text, message):
    root = tmp_path / "root"
    root.mkdir()
    for name in "abc":
        (root / f"{name}.jpg").touch()
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ProtocolError) as error:
        read_pair_list(tmp_path / "list.csv", root)
    assert str(error.value).startswith(f"{tmp_path}/list.csv: {message.format(root=root)}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a.jpg,\u00e9.jpg,1\n".encode("latin-1"), "line 1: not UTF-8 text; save it as UTF-8"),
        (b"a.jpg,b.jpg,1\na.jpg,\xff.jpg,0\n", "line 2: not UTF-8 text"),
        (b"\x1f\x8b" + bytes(50), "packed by gzip; unpack it first"),
        (b"PAR1" + bytes(50), "not a table of pairs ("),
    ],
)
def test_a_file_of_another_kind_is_one_line(tmp_path, data, message):
    (tmp_path / "list.csv").write_bytes(data)
    with pytest.raises(ProtocolError) as error:
        read_pair_list(tmp_path / "list.csv", tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/list.csv: {message}")


def test_pairs_of_one_kind_few_pairs_and_a_wrong_root_are_errors(lfw, rows, tmp_path, capsys):
    same = [row for row in rows if row[2]]
    for chosen, message in ((same, f"{len(same)} pairs, {len(same)} of them genuine"), (rows[:9], "9 pairs, ")):
        with pytest.raises(ProtocolError, match=f"{message}.*expected at least 10, genuine ones and others"):
            read(written(tmp_path / "a.csv", chosen), lfw)
    path = written(tmp_path / "a.csv", rows)
    with pytest.raises(ProtocolError, match=r"holds none of the \d+ images of .*a.csv, such as "):
        read_pair_set(path, root=tmp_path)
    with pytest.raises(ProtocolError, match="none: not a folder; --root names the folder of the images in"):
        read_pair_set(path, root=tmp_path / "none")
    read_pair_list(written(tmp_path / "a.csv", [*rows, rows[3], (rows[3][1], rows[3][0], *rows[3][2:])]), lfw / "lfw")
    assert f"2 pairs given again, such as pair {len(rows) + 1}; each counts as often" in capsys.readouterr().err


def test_a_list_that_is_sorted_by_kind_has_both_kinds_in_each_fold(lfw, rows, tmp_path):
    ordered = sorted(rows, key=lambda row: -row[2])
    protocol = read(written(tmp_path / "a.csv", ordered), lfw)
    assert "sorted by kind" in protocol.notes[0]
    genuine = protocol.genuine
    for kind in (genuine, ~genuine):
        parts = [
            part for fold, rows in enumerate(np.array_split(np.flatnonzero(kind), 10)) for part in [fold] * len(rows)
        ]
        assert sorted(parts) == sorted(protocol.folds[kind].tolist()) == protocol.folds[kind].tolist()
    stated = read(written(tmp_path / "a.csv", ordered, "{0},{1},{2},{3}\n"), lfw)
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
    assert score(protocol, intervals=False).main == "accuracy@full"


def test_scores_are_cosines_of_the_chosen_sizes(lfw, rows, tmp_path):
    """A naive oracle: every side is prepared and embedded by itself."""
    protocol = read(written(tmp_path / "a.csv", rows), lfw, sizes=(6, 30))
    assert list(protocol.members) == ["{}@6", "{}@30", "{}@full", "lr-lr/{}@6", "lr-lr/{}@30"]
    result, engine = score(protocol, intervals=False), Engine(embed=Recorder())
    for setting, downs in {"{}@6": (None, 6), "lr-lr/{}@30": (30, 30), "{}@full": (None, None)}.items():
        for row in (0, len(rows) // 2, len(rows) - 1):
            sides = [protocol.requests[request] for request in protocol.members[setting][row]]
            assert [side.down for side in sides] == list(downs)
            assert [str(side.path.relative_to(lfw / "lfw")) for side in sides] == list(rows[row][:2])
            vectors = [Recorder()(np.stack(_prepared(side, engine.spec)))[0] for side in sides]
            assert result.settings[setting].scores[row] == pytest.approx(cosine(*vectors), abs=1e-5)
    with pytest.raises(ProtocolError, match="degrades images to 200 px, more than the network's input of 128 px"):
        score(read(tmp_path / "a.csv", lfw, sizes=(200,)))
    for sizes in ((0,), (8, 8), (5000,)):
        with pytest.raises(ProtocolError, match="expected different sizes of 1 to 1024 px"):
            read(tmp_path / "a.csv", lfw, sizes=sizes)


def _prepared(request, spec):
    from pipeline.prepare import prepare

    return prepare(request.read(), [request], spec)


def test_each_image_is_embedded_once_a_size_however_many_pairs_show_it(lfw, rows, tmp_path):
    protocol = read(written(tmp_path / "a.csv", rows * 3), lfw, sizes=(8,))
    seen = Recorder()
    result = score(protocol, seen, intervals=False)
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
        score(said)
    assert score(said, spec=Preprocessing.unaligned(), intervals=False).metrics["auc@full"] > 0
    whole = read_pair_set(path, "none", root=lfw / "lfw")
    assert score(whole, intervals=False).metrics["auc@full"] > 0
    with pytest.raises(ProtocolError, match="trained on unaligned images only"):
        score(read_pair_set(path, "seed", root=lfw / "lfw"), spec=Preprocessing.unaligned())
    with pytest.raises(SourceError, match="--aligned mine: no such template or file"):
        read_pair_set(path, "mine", root=lfw / "lfw")
    with pytest.raises(ProtocolError, match="aligned crops need no landmarks"):
        read(path, lfw, aligned="seed")
    (tmp_path / "other.csv").write_text("x/y,1,2,3,4,5,6,7,8,9,90\n")
    with pytest.raises(LandmarkError, match="no landmarks for any of"):
        read_pair_set(path, root=lfw / "lfw", landmarks=[tmp_path / "other.csv"])


def test_more_people_than_a_bootstrap_takes_are_an_error(lfw, rows, tmp_path, monkeypatch):
    path = written(tmp_path / "a.csv", rows)
    people = len({Path(name).parent for row in rows for name in row[:2]})
    monkeypatch.setattr("benchmarks.datasets.own_images.MAX_IDENTITIES", people)
    read(path, lfw, sizes=())
    monkeypatch.setattr("benchmarks.datasets.own_images.MAX_IDENTITIES", people - 1)
    with pytest.raises(ProtocolError, match=f"a.csv: {people} people, expected at most {people - 1}; divide it"):
        read(path, lfw, sizes=())


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
    protocol = read(written(tmp_path / "a.csv", rows), lfw)
    with pytest.raises(ProtocolError, match="4 unusable images, listed above"):
        score(protocol)
    listed = capsys.readouterr().err
    for name, reason in zip(
        names[:4], ("not found", "cannot be decoded", "no landmarks in", "duplicate landmarks in"), strict=True
    ):
        assert f"{lfw}/lfw/{name}: {reason}" in listed
    partial = score(protocol, allow_missing=True, intervals=False)
    assert len(partial.missing) == 4
    assert partial.counts["left_out"] == sum(bool({*row[:2]} & set(names[:4])) for row in rows)


def test_only_results_of_the_same_protocol_are_compared(lfw, rows, tmp_path):
    path = written(tmp_path / "a.csv", rows)
    first = write_result(tmp_path / "a.json", score(read(path, lfw, sizes=()), intervals=False))
    other = write_result(tmp_path / "b.json", score(read(path, lfw, sizes=()), Noisy(500), intervals=False))
    (comparison,) = compare_networks(read_networks([first, other]))[0]
    assert comparison.results[1].metrics["auc@full"] < comparison.results[0].metrics["auc@full"] - 0.05
    fewer = written(tmp_path / "c.csv", rows[:-1])
    unaligned = read_pair_set(path, "none", root=lfw / "lfw", sizes=())
    for changed in (read(fewer, lfw, sizes=()), read(path, lfw, sizes=(8,)), unaligned):
        third = write_result(tmp_path / "c.json", score(changed, intervals=False))
        with pytest.raises(ProtocolError, match="scored on other pairs or probes"):
            compare_networks(read_networks([first, third]))


def test_swapped_truth_values_are_reported(lfw, rows, tmp_path):
    swapped = [(first, second, 1 - same, fold) for first, second, same, fold in rows]
    texts = [result_text(score(read(written(tmp_path / "a.csv", one), lfw, sizes=()))) for one in (rows, swapped)]
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
    result = score(read(written(tmp_path / "a <b>.csv", rows), lfw, sizes=(8, 16)))
    page = write_report([result], tmp_path / "report")
    names = {entry.name for entry in page.parent.iterdir()}
    assert {"report.html", "pairs.json", "pairs-roc.png", "pairs-resolution.png", "pairs-hardest-full.png"} <= names
    assert all(map(is_report_file, names))
    assert "a &lt;b&gt;.csv" in page.read_text()
