"""bench identify: folders of identities against SCface's protocol, naive searches, and folders that cannot be right."""

from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from benchmarks.datasets.identify import read_identification
from benchmarks.datasets.scface import read_scface
from benchmarks.engine.runner import Engine, run
from benchmarks.errors import ProtocolError
from benchmarks.report.page import is_report_file, write_report
from benchmarks.report.tables import result_text
from benchmarks.scoring.comparison import compare_networks, read_networks
from pipeline.prepare import prepare
from pipeline.sources.source import SourceError
from pipeline.spec import Preprocessing
from pipeline.tables.landmark_table import LandmarkError
from tests.benchmarks.oracles import naive_ranking
from tests.benchmarks.runs import FACTS, Noisy, Recorder, write_result
from tests.networks import save_small
from tests.processes import error_of


def score(protocol, embed=None, **options):
    return run(protocol, Engine(embed=embed or Recorder()), checkpoint=FACTS, **options)


@pytest.fixture(scope="module")
def crops(painted, tmp_path_factory):
    """Crops of generated people: gallery, probes and unmated, a folder a person."""
    root = tmp_path_factory.mktemp("crops")
    for number, (person, shots) in enumerate(painted.items()):
        for image, (pixels, landmarks) in enumerate(shots):
            role = "unmated" if number > 5 else "gallery" if image < 2 else "probes"
            path = root / role / person / f"{image}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            centre = landmarks.mean(0)
            left, top = (centre - 40).clip(0).astype(int)
            cv2.imwrite(str(path), np.ascontiguousarray(pixels[top : top + 80, left : left + 80, ::-1]))
    return root


@pytest.fixture
def folders(crops, tmp_path):
    """A copy that a test may damage."""
    return [shutil.copytree(crops / role, tmp_path / role) for role in ("gallery", "probes", "unmated")]


def test_mugshots_and_cameras_in_folders_score_as_scface(demo, tmp_path):
    """Crops of the network's own template and size are not touched: those of SCface's probes are small before."""
    scface, spec = read_scface(demo("SCface")), Preprocessing()
    reference = score(scface, intervals=False)
    for distance in (1, 2):
        search = scface.searches[f"{{}}@d{distance}"]
        folders = [tmp_path / f"gallery{distance}", tmp_path / f"probes{distance}"]
        for folder, rows, ids in (
            (folders[0], search.gallery, search.gallery_ids),
            (folders[1], search.probes, search.probe_ids),
        ):
            for row, subject in zip(rows.tolist(), ids.tolist(), strict=True):
                request = scface.requests[row]
                (crop,) = prepare(request.read(), [request], spec)
                path = folder / f"{subject:03d}" / f"{request.path.stem}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), crop[..., ::-1])
        mine = score(read_identification(*folders, aligned="seed", sizes=()), intervals=False)
        assert mine.metrics["rank1@full"] == reference.metrics[f"rank1@d{distance}"]
        assert mine.settings["{}@full"].ranks.tolist() == reference.settings[f"{{}}@d{distance}"].ranks.tolist()


def test_all_settings_agree_with_a_naive_search(crops):
    protocol = read_identification(
        crops / "gallery", crops / "probes", crops / "unmated", aligned="none", sizes=(8, 20)
    )
    closed = ["{}@8", "{}@20", "{}@full", "lr-lr/{}@8", "lr-lr/{}@20"]
    result = score(protocol, intervals=False)
    assert list(result.settings) == [*closed, *(f"open/{name}" for name in closed)]
    assert result.main == "rank1@full"
    assert {name: result.counts[name] for name in ("gallery", "identities", "probes", "unmated_probes")} == {
        "gallery": 12,
        "identities": 6,
        "probes": 18,
        "unmated_probes": 15,
    }
    progress = SimpleNamespace(update=lambda count: None)
    embedded = Engine(embed=Recorder()).embed_all(protocol.requests, progress)
    unit = embedded.vectors / np.linalg.norm(embedded.vectors, axis=1, keepdims=True)
    for setting in closed:
        downs = {"{}@8": (None, 8), "lr-lr/{}@20": (20, 20)}.get(setting)
        search = protocol.searches[setting]
        sides = [{protocol.requests[row].down for row in rows} for rows in (search.gallery, search.probes)]
        assert downs is None or sides == [{downs[0]}, {downs[1]}]
        people = [protocol.requests[row].path.parent.name for row in search.gallery]
        found = [
            naive_ranking(unit[row], protocol.requests[row].path.parent.name, unit[search.gallery], people)
            for row in search.probes
        ]
        samples = result.settings[setting]
        assert samples.ranks.tolist() == [rank for rank, _ in found]
        np.testing.assert_allclose(samples.precisions, [precision for _, precision in found])
        assert result.metrics[setting.format("map")] == pytest.approx(np.mean([precision for _, precision in found]))
        _check_open_set(protocol, f"open/{setting}", embedded.vectors, result)


def _check_open_set(protocol, setting, vectors, result):
    """TPIR at rank 1 by walking through the thresholds."""
    search = protocol.open_searches[setting]
    names = sorted({protocol.requests[row].path.parent.name for row in search.gallery})
    means = []
    for name in names:
        rows = [row for row in search.gallery if protocol.requests[row].path.parent.name == name]
        mean = vectors[rows].astype(np.float64).mean(0)
        means.append(mean / np.linalg.norm(mean))
    mated, unmated = [], []
    for row in search.probes:
        scores = np.array(means) @ (vectors[row] / np.linalg.norm(vectors[row]))
        person = protocol.requests[row].path.parent.name
        if person in names:
            mated.append(scores.max() if names[scores.argmax()] == person else -2)
        else:
            unmated.append(scores.max())
    samples = result.settings[setting]
    np.testing.assert_allclose(np.sort(samples.scores[samples.genuine]), np.sort(mated), atol=2e-6)
    np.testing.assert_allclose(np.sort(samples.scores[~samples.genuine]), np.sort(unmated), atol=2e-6)
    assert (len(mated), len(unmated)) == (18, 15)
    beyond = sorted(unmated, reverse=True)[3]  # three of 15 may be identified: FPIR 20 %
    expected = np.mean([score > beyond + 1e-6 for score in mated])
    assert result.metrics[setting.format("tpir1@fpir=0.2")] == pytest.approx(expected)


def test_a_gallery_of_one_image_each_has_no_map_and_no_rank_beyond_it(folders):
    gallery, probes, _ = folders
    for path in gallery.glob("*/1.png"):
        path.unlink()
    result = score(read_identification(gallery, probes, aligned="none", sizes=()), intervals=False)
    assert list(result.metrics) == ["rank1@full", "rank5@full"]
    assert "unmated_probes" not in result.counts


def test_images_may_be_nested_or_linked_and_unmated_images_need_no_folder(folders, tmp_path, capsys):
    gallery, probes, unmated = folders
    expected = read_identification(*folders, aligned="none", sizes=())
    (gallery / "n000001" / "deep").mkdir()
    (gallery / "n000001" / "1.png").rename(gallery / "n000001" / "deep" / "1.png")
    (tmp_path / "elsewhere").mkdir()
    (probes / "n000002").rename(tmp_path / "elsewhere" / "n000002")
    (probes / "n000002").symlink_to(tmp_path / "elsewhere" / "n000002")
    shutil.copyfile(gallery / "n000003" / "0.png", probes / "n000003" / "2.png")
    (gallery / "empty").mkdir()
    (gallery / ".hidden").mkdir()
    for path in list(unmated.glob("n000007/*")):
        path.rename(unmated / f"{path.parent.name}_{path.name}")
    found = read_identification(*folders, aligned="none", sizes=())
    one, other = (protocol.open_searches["open/{}@full"] for protocol in (found, expected))
    np.testing.assert_array_equal(one.probe_ids, other.probe_ids)
    np.testing.assert_array_equal(one.gallery_ids, other.gallery_ids)
    assert len(set(found.people.tolist())) == len(set(expected.people.tolist())) + 4
    assert "5 unmated images in no folder: one person each" in found.notes[0]
    assert found.notes[1] == f"1 probe with a copy of the same file in the gallery, such as {probes}/n000003/2.png"
    assert len(expected.notes) == 1
    said = capsys.readouterr().err
    assert f"{gallery}: 1 folder without an image (empty)" in said
    assert "ignored 1 hidden or system entry" in said


def _flat(folders):
    for path in list(folders[1].glob("*/*")):
        path.rename(folders[1] / f"{path.parent.name}_{path.name}")


def _renamed(folders):
    (folders[1] / "n000002").rename(folders[1] / "N000002")


def _one(folders):
    for path in sorted(folders[0].iterdir())[1:]:
        shutil.rmtree(path)


def _known(folders):
    (folders[2] / "n000007").rename(folders[2] / "n000001")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            _flat,
            "{1}: 18 images in no folder of a person, such as n000001_2.png; --probes holds a folder for each person:"
            " PERSON/image.jpg",
        ),
        (_renamed, "{1}: 1 identity not in the gallery, such as N000002 (the gallery has n000002); add their folders"),
        (_one, "{0}: 1 identity, expected two or more, a folder each: PERSON/image.jpg"),
        (_known, "{2}: 1 identity in the gallery, such as n000001; move them to the folder of --probes"),
        (lambda folders: shutil.rmtree(folders[1]), "{1}: not a folder; --probes names a folder of images"),
    ],
)
def test_folders_that_cannot_be_right_are_one_line(folders, damage, message):
    damage(folders)
    with pytest.raises(ProtocolError) as error:
        read_identification(*folders, aligned="none")
    assert str(error.value).startswith(message.format(*folders))
    assert "\n" not in str(error.value)


def test_more_people_than_a_bootstrap_takes_are_an_error(crops, monkeypatch):
    monkeypatch.setattr("benchmarks.datasets.own_images.MAX_IDENTITIES", 8)
    with pytest.raises(ProtocolError, match="9 people, expected at most 8; divide it into several"):
        read_identification(crops / "gallery", crops / "probes", crops / "unmated", aligned="none")


def test_no_image_may_be_in_two_folders(folders, tmp_path):
    gallery, probes, unmated = folders
    link = tmp_path / "link"
    os.symlink(gallery, link)
    for given, message in (
        ((gallery, link), "--gallery .* is --probes .*: its images would be in both"),
        ((gallery, probes, tmp_path), "--gallery .* lies in --unmated"),
        ((gallery, gallery / "n000001"), "--probes .* lies in --gallery"),
    ):
        with pytest.raises(ProtocolError, match=message):
            read_identification(*given, aligned="none")
    shutil.rmtree(unmated)
    unmated.mkdir()
    with pytest.raises(SourceError, match="unmated: contains no images"):
        read_identification(*folders, aligned="none")


def test_names_of_folders_are_shown_escaped(folders, tmp_path, capsys):
    odd = [folder.rename(tmp_path / f"x\x1b[31m\n\udcff{folder.name}") for folder in folders]
    for folder in odd[:2]:
        (folder / "n000001").rename(folder / "n\udcfe\x1b1")
    result = score(read_identification(*odd, aligned="none", sizes=()), intervals=False)
    assert result.title == r"x\x1b[31m\n\udcffprobes in x\x1b[31m\n\udcffgallery"
    assert result_text(result).replace("\n", "").isprintable()
    assert result.metrics == score(read_identification(*odd, aligned="none", sizes=()), intervals=False).metrics
    shutil.copytree(odd[0] / "n\udcfe\x1b1", odd[2] / "n\udcfe\x1b1")
    with pytest.raises(ProtocolError, match="1 identity in the gallery"):
        read_identification(*odd, aligned="none")


def test_unusable_images_leave_probes_out(folders, capsys):
    gallery, probes, _ = folders
    (probes / "n000001" / "2.png").write_bytes(b"nonsense")
    for image in (0, 1):
        (gallery / "n000002" / f"{image}.png").write_bytes(b"")
    protocol = read_identification(*folders, aligned="none", sizes=())
    with pytest.raises(ProtocolError, match="3 unusable images, listed above; restore the images; or pass --allow"):
        score(protocol)
    partial = score(protocol, allow_missing=True, intervals=False)
    assert len(partial.settings["{}@full"].ranks) == 18 - 1 - 3
    assert partial.counts["left_out"] == 4


def test_landmarks_are_looked_up_by_path(folders, tmp_path):
    rows = []
    for folder in folders:
        for path in sorted(folder.glob("*/*")):
            rows.append(f"{folder.name}/{path.parent.name}/{path.name},25,30,55,30,40,45,28,62,52,{60 + len(rows) % 5}")
    (tmp_path / "all.csv").write_text("\n".join(rows) + "\n")
    protocol = read_identification(*folders, landmarks=[tmp_path / "all.csv"], sizes=())
    assert [request.points[4][1] for request in protocol.requests] == [60 + row % 5 for row in range(len(rows))]
    (tmp_path / "names.csv").write_text("\n".join(row.partition("/")[2] for row in rows[:12]) + "\n")
    protocol = read_identification(*folders, landmarks=[tmp_path / "names.csv"], sizes=())
    assert [bool(request.points) for request in protocol.requests] == [True] * 12 + [False] * 33


def test_landmarks_of_images_that_were_moved_are_found_by_name(folders, tmp_path):
    """As SCface's own tables and images, put into folders of people."""
    rows = []
    for folder in folders:
        for path in sorted(folder.glob("*/*")):
            name = f"{path.parent.name}_{path.name}"
            path.rename(path.parent / name)
            rows.append(f"before/{name},25,30,55,30,40,45,28,62,52,{60 + len(rows) % 5}")
    (tmp_path / "all.csv").write_text("\n".join(rows) + "\n")
    protocol = read_identification(*folders, landmarks=[tmp_path / "all.csv"], sizes=())
    assert [request.points[4][1] for request in protocol.requests] == [60 + row % 5 for row in range(len(rows))]
    first = protocol.requests[0].path
    shutil.copyfile(first, first.parent.parent / "n000002" / first.name)  # the name tells no image any more
    with pytest.raises(LandmarkError, match=r"all.csv: no landmarks for any of 46 images, for example "):
        read_identification(*folders, landmarks=[tmp_path / "all.csv"], sizes=())


def test_only_results_of_the_same_protocol_are_compared(folders, tmp_path):
    first = write_result(
        tmp_path / "a.json", score(read_identification(*folders, aligned="none", sizes=()), intervals=False)
    )
    other = score(read_identification(*folders, aligned="none", sizes=()), Noisy(500), intervals=False)
    (comparison,) = compare_networks(read_networks([first, write_result(tmp_path / "b.json", other)]))[0]
    assert set(comparison.intervals[0]) == set(other.metrics)
    (folders[1] / "n000001" / "2.png").unlink()
    changed = score(read_identification(*folders, aligned="none", sizes=()), intervals=False)
    with pytest.raises(ProtocolError, match="scored on other pairs or probes"):
        compare_networks(read_networks([first, write_result(tmp_path / "c.json", changed)]))


def test_the_command(run, crops, tmp_path):
    save_small(tmp_path / "x.pt")
    words = ["--gallery", crops / "gallery", "--probes", crops / "probes", "--checkpoint", tmp_path / "x.pt"]
    done = run("bench", "identify", *words, "--aligned", "none", "--sizes", "8", "--json", tmp_path / "a.json")
    assert done.returncode == 0, done.stderr
    assert "probes in gallery: full size, %" in done.stdout
    assert "probes in gallery: HR to LR, rank-1, %" in done.stdout
    assert "open set" not in done.stdout
    assert f"data: gallery {crops}/gallery, probes {crops}/probes" in done.stdout
    content = json.loads((tmp_path / "a.json").read_text())
    assert (content["benchmark"], content["main"]) == ("identify", "rank1@full")
    assert content["notes"] == ["intervals: bootstrap over people, the folders of probes"]
    opened = run("bench", "identify", *words, "--unmated", crops / "unmated", "--aligned", "none", "--sizes", "full")
    assert "probes in gallery: open set, full size, %" in opened.stdout
    assert "TPIR1 at FPIR 20 %" in opened.stdout
    assert "smallest resolvable FPIR: 6.7 % (1/15)" in opened.stdout
    line = error_of(run("bench", "identify", *words))
    assert line.startswith(
        f"Error: bench identify: {tmp_path}/x.pt was trained on aligned faces (template seed): say how"
    )


@pytest.mark.heavy
def test_the_report(crops, tmp_path):
    protocol = read_identification(crops / "gallery", crops / "probes", crops / "unmated", aligned="none")
    result = score(protocol)
    assert "open set, LR to LR, TPIR1 at FPIR 10 %" in result_text(result)
    page = write_report([result], tmp_path / "report")
    names = {entry.name for entry in page.parent.iterdir()}
    shown = {"report.html", "identify.json", "identify-cmc.png", "identify-dir.png", "identify-resolution.png"}
    assert shown | {"identify-hardest-8.png", "identify-hardest-full.png"} <= names
    assert all(map(is_report_file, names))
