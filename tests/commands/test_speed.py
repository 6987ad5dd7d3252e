"""bench speed: what it prints and writes. No test asserts a time: machines differ."""

from __future__ import annotations

import errno
import json
import re
import tempfile

import pytest

from commands.group import CommandError
from commands.speed import run_stages
from pipeline.demo.generate import write_demo_data
from tests.benchmarks.speed.timings import timing_of

STAGES = ("build", "loader", "step", "eval")


def timings_of(run, folder, *words):
    outputs = ["--json", folder / "speed.json", "--chart", folder / "speed.png"]
    result = run("bench", "speed", *words, "--quick", *outputs)
    assert result.returncode == 0, result.stderr
    assert (folder / "speed.png").read_bytes().startswith(b"\x89PNG")
    timings = json.loads((folder / "speed.json").read_text())
    for timing in timings:
        assert timing["title"] in result.stdout
        assert timing["quick"] is True
        assert timing["machine"]["cores"]
        for name, contender in timing["contenders"].items():
            assert len(contender["seconds"]) == 2
            assert contender["rate"] > 0
            if name.endswith(("LR to LR too", "loader alone")):  # another result
                assert contender["times_baseline"] is None
            else:
                assert contender["times_baseline"] > 0
    return timings, result.stdout


@pytest.mark.heavy
def test_all_stages_are_timed_against_a_baseline(run, tmp_path):
    timings, _ = timings_of(run, tmp_path, "all")
    assert {timing["stage"] for timing in timings} == set(STAGES)
    roles = {timing["title"]: {row["role"] for row in timing["contenders"].values()} for timing in timings}
    assert all(found >= {"baseline", "ours"} for found in roles.values())
    with_floor = {title.partition(",")[0] for title, found in roles.items() if "floor" in found}
    assert with_floor == {"build", "loader"}


@pytest.mark.heavy
def test_the_stage_for_a_gpu_runs_on_a_cpu(run, tmp_path):
    timings, _ = timings_of(run, tmp_path, "gpu", "--device", "cpu")
    assert {timing["stage"] for timing in timings} == {"gpu"}
    assert any(timing["title"].startswith("training on the cpu") for timing in timings)


@pytest.mark.heavy
def test_the_step_is_timed_against_a_plain_one(run, tmp_path):
    (timing,), printed = timings_of(run, tmp_path, "step", "--device", "cpu", "--backbone", "spherenet4")
    assert re.search(r"^ours, fp32 +[\d.,]+ +[\d.,]+ +\d+\.\d\d \[\d+\.\d\d, \d+\.\d\d\] *$", printed, re.M)
    assert re.search(
        r"device: .+, TFLOP a step: 0\.\d+, .*loader wait: \d+\.\d\d% of a step in fp32, at most \d+\.\d\d%\n",
        printed,
    )
    assert {name: contender["role"] for name, contender in timing["contenders"].items()} == {
        "plain, fp32": "baseline",
        "ours, fp32": "ours",
        "ours, bf16": "ours",
    }


def error_of(result, code=1):
    """The last line of a failed command, which has printed nothing on stdout."""
    assert result.returncode == code
    assert result.stdout == ""
    return result.stderr.splitlines()[-1]


def test_a_folder_without_data_sets_is_an_error(run, tmp_path):
    result = run("bench", "speed", "build", "--quick", "--root", tmp_path)
    assert error_of(result).startswith(f"Error: {tmp_path}/VGGFace2: no such folder with bb_landmark")
    assert len(result.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    root = tmp_path_factory.mktemp("damaged")
    write_demo_data(root, identities=4, images=2, seed=0, layouts=["VGGFace2", "LFW"])
    for path in root.rglob("*.jpg"):
        path.write_bytes(b"\xff\xd8")
    return root


@pytest.mark.parametrize("stage", [*STAGES, "gpu", "all"])
def test_unreadable_images_are_an_error_before_anything_is_timed(run, damaged, stage):
    result = run("bench", "speed", stage, "--quick", "--root", damaged)
    assert error_of(result).startswith(f"Error: {damaged / ('LFW' if stage == 'eval' else 'VGGFace2')}: ")
    assert len(result.stderr.splitlines()) == 1
    assert "--root names the folder" in result.stderr


def test_json_and_chart_must_be_two_files(run, tmp_path):
    words = ["--json", tmp_path / "a.png", "--chart", tmp_path / "b" / ".." / "a.png"]
    assert error_of(run("bench", "speed", "step", "--quick", *words), 2).endswith(
        "--json names the same file; choose another name"
    )


def test_a_chart_must_be_named_as_a_png(run, tmp_path):
    result = run("bench", "speed", "step", "--quick", "--chart", tmp_path / "speed.svg")
    message = f"--chart {tmp_path / 'speed.svg'}: the chart is a PNG; name a file that ends in .png"
    assert message in error_of(result, 2)


def test_a_batch_has_no_more_identities_than_the_data(run):
    assert "2<=x<=8631" in error_of(run("bench", "speed", "step", "--quick", "--batch-size", 8632), 2)


@pytest.mark.parametrize("stage", [*STAGES, "gpu", "all"])
def test_help_names_the_data_sets_of_a_stage(run, stage):
    text = " ".join(run("bench", "speed", stage, "--help").stdout.split())
    data_sets = {"eval": "LFW", "all": "VGGFace2 and LFW"}.get(stage, "VGGFace2")
    assert f"Folder with {data_sets} in it to take faces from." in text


def run_stage(stage, **changes):
    options = {"root": None, "rounds": 1, "quick": True, "json_file": None, "chart": None}
    run_stages([stage], **{**options, **changes})


@pytest.mark.parametrize("end", [KeyboardInterrupt(), ValueError("late")], ids=["interruption", "failure"])
def test_tables_measured_before_the_end_are_kept(tmp_path, capsys, end):
    def stage(setup):
        yield timing_of()
        raise end

    json_file, chart = tmp_path / "a.json", tmp_path / "a.png"
    with pytest.raises(type(end)) as caught:
        run_stage(stage, json_file=json_file, chart=chart)
    assert "\nA step " in capsys.readouterr().out
    assert [timing["title"] for timing in json.loads(json_file.read_text())] == ["A step"]
    assert chart.read_bytes().startswith(b"\x89PNG")
    assert caught.value.__notes__ == [f"1 table saved in {json_file}; chart: {chart}"]


def test_a_chart_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    def stage(setup):
        yield timing_of()

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("benchmarks.speed.results.write_chart", full)
    json_file, chart = tmp_path / "a.json", tmp_path / "a.png"
    with pytest.raises(CommandError) as caught:
        run_stage(stage, json_file=json_file, chart=chart)
    assert str(caught.value).startswith(f"--chart {chart}: cannot be written: No space left on device")
    assert caught.value.__notes__ == [f"1 table saved in {json_file}"]


def test_before_the_first_table_nothing_is_kept():
    def stage(setup):
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt) as caught:
        run_stage(stage)
    assert not hasattr(caught.value, "__notes__")


def test_a_table_that_cannot_be_printed_is_in_the_json(tmp_path, monkeypatch):
    def stage(setup):
        yield timing_of()

    def closed(text, **where):
        if "A step" in text:
            raise BrokenPipeError

    monkeypatch.setattr("click.echo", closed)
    with pytest.raises(BrokenPipeError):
        run_stage(stage, json_file=tmp_path / "a.json", chart=tmp_path / "a.png")
    assert [timing["title"] for timing in json.loads((tmp_path / "a.json").read_text())] == ["A step"]
    assert (tmp_path / "a.png").exists()


def test_the_scratch_folder_is_removed(capsys):
    def stage(setup):
        (setup.scratch / "file").touch()
        scratch.append(setup.scratch)
        yield timing_of()

    scratch = []
    run_stage(stage)
    assert len(scratch) == 1
    assert not scratch[0].exists()


def test_a_scratch_folder_that_cannot_be_used_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    monkeypatch.setattr(tempfile, "tempdir", None)  # Python's cache
    message = r"^\$TMPDIR .*none: cannot be written to; name a folder that can, or unset it$"
    with pytest.raises(CommandError, match=message):
        run_stage(lambda setup: iter([]))
