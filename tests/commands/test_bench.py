"""The bench command: validation of output paths, failures of single benchmarks, interruptions."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch

import cli
from benchmarks.engine import runner
from benchmarks.errors import ProtocolError
from benchmarks.scoring.results import write_json
from commands import scoring
from model.formats import network
from pipeline.demo.generate import write_demo_data
from pipeline.images.decode import ImageError
from tests.benchmarks.runs import score
from tests.networks import save_small, small_backbone
from tests.processes import PATIENCE_S, REPOSITORY, error_of


@pytest.fixture(scope="module")
def _data(tmp_path_factory):
    out = tmp_path_factory.mktemp("data")
    write_demo_data(out, identities=8, images=3, seed=0)
    save_small(out / "x.pt")
    return out


def copied(data, folder, *data_sets):
    """A small network and data sets, which a test may damage; returns the options that score it."""
    for name in data_sets:
        shutil.copytree(data / name, folder / name)
    return ["--network", shutil.copy(data / "x.pt", folder)]


@pytest.fixture
def words(_data, tmp_path):
    """All data sets and a small network; the options that score it."""
    return copied(_data, tmp_path, *(path.name for path in _data.iterdir() if path.is_dir()))


@pytest.fixture
def few_words(_data, tmp_path):
    """As ``words``, with the data sets of three small benchmarks."""
    return copied(_data, tmp_path, "QMUL-SurvFace", "TinyFace")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json", "folder"], "Invalid value for '--json': folder is a folder; expected a file to write"),
        (["--json", ""], "Invalid value for '--json': an empty path; is a variable of the shell not set?"),
        (["--json", "/dev/null"], "Invalid value for '--json': /dev/null is neither file nor folder; expected a file"),
        (["--json", "file/a.json"], "Invalid value for '--json': file/a.json: {}/file is not a folder; choose another"),
        (["--json", "/proc/none/a.json"], "Invalid value for '--json': /proc/none/a.json: /proc is not writable"),
        (["--report", "file"], "Invalid value for '--report': file is a file; expected a folder to write into"),
        (["--report", ""], "Invalid value for '--report': an empty path; is a variable of the shell not set?"),
        (
            ["--json", "a", "--report", "a"],
            "--json a and --report a: a path cannot be both file and folder; choose two paths",
        ),
        (
            ["--json", "a", "--report", "a/b"],
            "--json a and --report a/b: a path cannot be both file and folder; choose two paths",
        ),
        (["--json", "r/lfw.json", "--report", "r"], "--json r/lfw.json: the report writes a file of this name"),
    ],
)
def test_output_paths_are_validated_before_the_work(run, tmp_path, options, message):
    """There is neither network nor data, so the paths are checked first."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert error_of(run("bench", "lfw", *options), code=2).startswith(f"Error: {message.format(tmp_path)}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_root_that_is_a_file_is_a_usage_error(run, tmp_path):
    (tmp_path / "file").touch()
    for name in ("lfw", "all"):
        message = error_of(run("bench", name, "--root", tmp_path / "file"), code=2)
        assert message == f"Error: Invalid value for '--root': Directory '{tmp_path}/file' is a file."


def test_compare_takes_2_to_26_networks(run, demo_result, tmp_path):
    message = error_of(run("bench", "compare", *["q.json"] * 27), code=2)
    assert message == "Error: compare needs 2 to 26 networks, found 27 in the files"
    message = error_of(run("bench", "compare", "q.json", "--report", "report"), code=2)
    assert message == "Error: compare needs 2 to 26 networks, found 1 in the files"
    message = error_of(run("bench", "compare", "q.json", "q.json", "--name", "a"), code=2)
    assert message == "Error: --name: 1 name for 2 networks; name all of them, or none"
    assert not (tmp_path / "report").exists()


@pytest.mark.usefixtures("no_drawings")
def test_compare_writes_a_report(run, demo_result, tmp_path):
    options = ["--name", "first", "--name", "=second|<b>", "--report", "report"]
    done = run("bench", "compare", "q.json", "q.json", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "report: report/report.html"
    assert "\nA: first, q.json\nB: =second|<b>, q.json\n" in done.stdout
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert {"report.html", "report.md", "report.tex", "report.csv", "qmul-roc.svg", "qmul-roc.pdf"} <= names
    assert "qmul.json" not in names
    assert "\n'=second|<b>," in (tmp_path / "report" / "report.csv").read_text()
    for name, shown in {"html": "=second|&lt;b&gt;", "md": r"=second\|&lt;b&gt;", "tex": r"second\textbar{}"}.items():
        assert shown in (tmp_path / "report" / f"report.{name}").read_text()
    (tmp_path / "report" / "report.md").write_text("mine")
    error = error_of(run("bench", "compare", "q.json", "q.json", "--report", "report"))
    assert error.startswith("Error: report/report.md: exists and is not a report of bench; choose another")


@pytest.fixture
def demo_result(_data, tmp_path):
    """The result of a network without weights, q.json."""
    write_json([score("qmul", _data / "QMUL-SurvFace")], tmp_path / "q.json")


@pytest.mark.slow
@pytest.mark.usefixtures("no_drawings")
def test_results_and_reports_name_the_network_and_its_training(run, few_words, tmp_path):
    """The checkpoint lies in a run, whose curves are shown up to its step."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    loader = {"index_digest": "f00d"}
    save_small(tmp_path / "run" / "checkpoints" / "7.pt", head_state={"weight": torch.zeros(5, 2)}, loader_state=loader)
    rows = [{"step": n, "loss": 10.0 - n, "ce@8": 1.0, "lr": 0.1, "images_per_s": 3.0} for n in range(1, 10)]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["bench", "qmul", "--network", "run/checkpoints/7.pt", "--name", "my $net"]
    done = run(*words, "--json", "q.json", "--report", "report", "--no-faces", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "\nmy $net  " in done.stdout
    record = json.loads((tmp_path / "q.json").read_text())
    facts = record["checkpoint"]
    assert facts["name"] == "my $net"
    assert facts["training_data"] == {"identities": 5, "shard_set": "f00d"}
    assert facts["training"]["steps"] == 7
    assert facts["curves"] == {
        "step": [*range(1, 8)],
        "loss": [10.0 - n for n in range(1, 8)],
        "ce@8": [1.0] * 7,
        "lr": [0.1] * 7,
    }
    assert facts["parameters"] == sum(one.numel() for one in small_backbone().parameters())
    assert record["measurement"]["command"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "training curves of my $net" in page
    assert "data:image/jpeg" not in page
    assert "only a report shows faces; add --report" in error_of(run(*words, "--no-faces"), code=2)
    assert error_of(run(*words, "--name", "b"), code=2).endswith(
        "--name: 2 names for 1 network; name all of them, or none"
    )


def test_help_describes_dynamic_defaults(run):
    text = " ".join(run("bench", "lfw", "--help").stdout.split())
    assert "[default: the newest checkpoint under $LRFR_DATA/runs]" in text
    assert "[default: found under --root]" in text


@pytest.mark.parametrize("error", [OSError(36, "File name too long", "x"), ImageError("bad"), ProtocolError("bad")])
def test_a_failed_benchmark_does_not_stop_the_others(monkeypatch, error):
    monkeypatch.setattr(scoring, "open_engine", lambda **_: contextlib.nullcontext((None, None, {"device": "cpu"})))
    monkeypatch.setattr(scoring, "network_facts", lambda *_: {})
    monkeypatch.setattr(scoring, "warn_of_guess", lambda *_: True)
    names = []

    def read(name):
        names.append(name)
        raise error

    assert scoring.score(["a", "b"], read, json_file=None, report=None, allow_missing=False) == {"a": error, "b": error}
    assert names == ["a", "b"]
    for bug in (BrokenPipeError(), ZeroDivisionError()):
        error = bug
        with pytest.raises(type(bug)):
            scoring.score(["a"], read, json_file=None, report=None, allow_missing=False)


def test_data_sets_that_are_not_there_are_told_from_those_that_cannot_be_scored(run, few_words, tmp_path):
    (tmp_path / "none").mkdir()
    absent = run("bench", "all", *few_words, "--root", tmp_path / "none")
    assert error_of(absent).startswith(
        f"Error: {tmp_path}/none: no data set is there; --root names the folder with LFW"
    )
    (tmp_path / "TinyFace").rename(tmp_path / "none" / "TinyFace")
    for path in (tmp_path / "none" / "TinyFace").rglob("*.mat"):
        path.write_bytes(b"")
    damaged = run("bench", "all", *few_words, "--root", tmp_path / "none")
    assert error_of(damaged) == "Error: 1 of 6 benchmarks could not be scored, see above"


@pytest.mark.slow
@pytest.mark.usefixtures("no_drawings")
def test_an_oserror_in_one_data_set_does_not_stop_the_others(run, words, tmp_path):
    """The pair list has a name of 300 characters, which the file system rejects."""
    pairs = tmp_path / "LFW" / "pairs.txt"
    lines = pairs.read_text().splitlines()
    lines[1] = "\t".join(["n" * 300, *lines[1].split("\t")[1:]])
    pairs.write_text("\n".join(lines) + "\n")
    failed = run("bench", "all", *words, "--json", tmp_path / "a.json", "--report", tmp_path / "report")
    assert error_of(failed) == "Error: 1 of 6 benchmarks could not be scored, see above"
    assert [line for line in failed.stderr.splitlines() if line.startswith("lfw: not scored: ")]
    assert len(json.loads((tmp_path / "a.json").read_text())["results"]) == 5
    assert (tmp_path / "report" / "report.html").exists()


@pytest.mark.slow
def test_the_json_records_precision_and_device(run, words, tmp_path):
    done = run("bench", "qmul", *words, "--precision", "bf16", "--device", "cpu", "--json", "q.json")
    assert done.returncode == 0
    assert "spherenet4, step 7, bf16  " in done.stdout
    checkpoint = json.loads((tmp_path / "q.json").read_text())["checkpoint"]
    assert (checkpoint["precision"], checkpoint["device"]) == ("bf16", "cpu")


@pytest.mark.slow
def test_realistic_low_resolution_is_named_and_compared_with_clean(run, words, tmp_path):
    words = ["lfw", "--root", tmp_path / "LFW", *words]
    realistic = run("bench", *words, "--degrade", "surveillance", "--json", "realistic.json")
    assert realistic.returncode == 0, realistic.stderr
    assert "\nspherenet4, step 7, surveillance  " in realistic.stdout
    assert "\ndegradation: surveillance, digest " in realistic.stdout
    assert json.loads((tmp_path / "realistic.json").read_text())["checkpoint"]["degradation"] == "surveillance"
    assert run("bench", *words, "--json", "clean.json").returncode == 0
    assert "surveillance" not in (tmp_path / "clean.json").read_text()
    compared = run("bench", "compare", "clean.json", "realistic.json")
    assert (
        "\nA: spherenet4, step 7, clean.json\nB: spherenet4, step 7, surveillance, realistic.json\n" in compared.stdout
    )
    unknown = error_of(run("bench", *words, "--degrade", "cctv"))
    assert unknown == "Error: degradation 'cctv' is unknown; choose surveillance, webcam, blind-sr or a file NAME.toml"


@pytest.mark.usefixtures("no_drawings", "run")
def test_results_are_stored_before_they_are_printed(few_words, tmp_path, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    closed = os.fdopen(write, "w")
    monkeypatch.setattr(sys, "stdout", closed)
    monkeypatch.setattr(sys, "stderr", sys.stderr)  # click replaces it
    with pytest.raises(SystemExit) as end:
        cli.main(["bench", "tinyface", *few_words, "--json", "p.json", "--report", "report"])
    assert end.value.code == 1
    with pytest.raises(BrokenPipeError):
        closed.close()
    assert json.loads((tmp_path / "p.json").read_text())["benchmark"] == "tinyface"
    assert (tmp_path / "report" / "tinyface.json").exists()


@pytest.mark.heavy
@pytest.mark.parametrize(("command", "first"), [("tinyface", "tinyface"), ("all", "qmul")])
def test_a_closed_pipe_loses_no_result(few_words, tmp_path, command, first):
    options = ["bench", command, *few_words, "--json", "p.json", "--report", "report"]
    process = subprocess.Popen(
        [sys.executable, REPOSITORY / "cli.py", *options],
        cwd=tmp_path,
        env={**os.environ, "LRFR_DATA": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    assert "Traceback" not in process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 1
    assert json.loads((tmp_path / "p.json").read_text())["benchmark"] == first
    assert (tmp_path / "report" / f"{first}.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("cached", [True, pytest.param(False, marks=pytest.mark.heavy)])
@pytest.mark.usefixtures("no_drawings")
def test_an_interruption_saves_what_it_says(few_words, interrupted, tmp_path, cached):
    options = [
        "bench",
        "all",
        *few_words,
        "--json",
        "p.json",
        "--report",
        "report",
        *([] if cached else ["--no-cache"]),
    ]
    message = interrupted(runner, "run", 3, options)
    assert len(json.loads((tmp_path / "p.json").read_text())["results"]) == 2
    words = ["interrupted"] + ["embeddings so far are cached: run the same command to continue"] * cached
    words += ["2 of 6 results saved in p.json", "report: report/report.html"]
    assert message == "; ".join(words)
    assert (tmp_path / "report" / "report.html").exists()


def test_an_interruption_before_the_first_result_claims_nothing(few_words, interrupted, tmp_path):
    """The signal comes while the network loads."""
    options = ["bench", "qmul", *few_words, "--no-cache", "--json", "p.json"]
    assert interrupted(network, "load_network", 1, options) == "interrupted"
    assert not (tmp_path / "p.json").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("no_drawings")
def test_several_networks_are_scored_and_compared_in_one_go(run, tmp_path):
    """One of them cannot be opened: it is reported, and the others are scored."""
    write_demo_data(tmp_path, identities=4, images=3, seed=0)
    root = tmp_path / "QMUL-SurvFace"
    for name, changes in (("a", {}), ("b", {"backbone_state": small_backbone(1).state_dict(), "step": 9})):
        save_small(tmp_path / f"{name}.pt", **changes)
    words = ["bench", "qmul", "--root", root, "--network", "a.pt", "--network", "none.pt", "--network", "b.pt"]
    done = run(*words, "--json", "all.json", "--report", "report")
    assert error_of(done) == "Error: 1 of 3 networks could not be scored, see above"
    assert "\nnone.pt: not scored: none.pt: not found; expected a checkpoint file\n" in done.stderr
    assert done.stdout.index("spherenet4, step 7  ") < done.stdout.index("spherenet4, step 9  ")
    assert re.search(r"^QMUL-SurvFace.*, % +A +B +B - A$", done.stdout, re.M)
    assert "\nA: spherenet4, step 7, a.pt\nB: spherenet4, step 9, b.pt\n" in done.stdout
    assert "\nreport: report/report.html\n" in done.stdout
    results = json.loads((tmp_path / "all.json").read_text())["results"]
    assert [result["checkpoint"]["path"] for result in results] == ["a.pt", "b.pt"]
    text = (tmp_path / "report" / "report.html").read_text()
    assert "spherenet4, step 7" in text
    assert "spherenet4, step 9" in text
    compared = run("bench", "compare", "all.json")
    assert compared.returncode == 0, compared.stderr
    assert compared.stdout.splitlines()[0] in done.stdout
    named = run(*words[:4], "--network", "a.pt", "--network", "b.pt", "--name", "one", "--name", "two")
    assert "\nA: one, a.pt\nB: two, b.pt\n" in named.stdout
    assert error_of(run(*words, "--name", "one"), code=2) == (
        "Error: --name: 1 name for 3 networks; name all of them, or none"
    )
