"""bench speed: what it prints and writes. No time is asserted anywhere: machines differ."""

from __future__ import annotations

import errno
import functools
import json
import tempfile
import weakref

import pytest

from benchmarks.speed.device import peak_memory
from commands import speed_gpu
from commands.group import CommandError
from commands.speed import report
from commands.speed_step import step
from pipeline.demo.generate import write_demo_data
from pipeline.executors import WorkerError
from shards.index import ShardIndex
from tests.benchmarks.speed.test_timing import timing_of

STAGES = {"build", "loader", "step", "eval"}


def timings_of(run, folder, *words):
    process = run("bench", "speed", *words, "--quick", "--json", folder / "speed.json", "--chart", folder / "speed.png")
    assert process.returncode == 0, process.stderr
    assert (folder / "speed.png").read_bytes().startswith(b"\x89PNG")
    timings = json.loads((folder / "speed.json").read_text())
    for timing in timings:
        assert timing["title"] in process.stdout
        assert timing["quick"] is True
        assert timing["machine"]["cores"]
        for name, contender in timing["contenders"].items():
            assert len(contender["seconds"]) == 2
            assert contender["rate"] > 0
            if name.endswith(("LR to LR too", "loader alone")):  # which do another work
                assert contender["times_baseline"] is None
            else:
                assert contender["times_baseline"] > 0
    return timings


@pytest.mark.heavy
def test_all_stages_are_timed_against_a_plain_way(run, tmp_path):
    timings = timings_of(run, tmp_path, "all")
    assert {timing["stage"] for timing in timings} == STAGES
    for timing in timings:
        roles = {contender["role"] for contender in timing["contenders"].values()}
        assert roles >= {"baseline", "ours"}
    with_floor = {
        timing["title"] for timing in timings if "floor" in {c["role"] for c in timing["contenders"].values()}
    }
    assert {title.partition(",")[0] for title in with_floor} == {"build", "loader"}


@pytest.mark.heavy
def test_what_a_gpu_changes_has_parts_that_a_cpu_runs(run, tmp_path):
    timings = timings_of(run, tmp_path, "gpu", "--device", "cpu")
    assert {timing["stage"] for timing in timings} == {"gpu"}
    assert any(timing["title"].startswith("training on the cpu") for timing in timings)


def test_a_folder_without_data_sets_is_told(run, tmp_path):
    process = run("bench", "speed", "build", "--quick", "--root", tmp_path)
    assert process.returncode == 1
    assert process.stderr.startswith(f"Error: {tmp_path}/VGGFace2: no such folder with bb_landmark")
    assert len(process.stderr.splitlines()) == 1
    assert process.stdout == ""


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    root = tmp_path_factory.mktemp("damaged")
    write_demo_data(root, identities=4, images=2, seed=0, layouts=["VGGFace2", "LFW"])
    for path in root.rglob("*.jpg"):
        path.write_bytes(b"\xff\xd8")
    return root


@pytest.mark.parametrize("stage", ["build", "loader", "step", "gpu", "scale", "all", "eval"])
def test_images_that_cannot_be_read_are_told_before_anything_is_timed(run, damaged, stage):
    process = run("bench", "speed", stage, "--quick", "--root", damaged)
    assert process.returncode == 1
    assert process.stderr.startswith(f"Error: {damaged / ('LFW' if stage == 'eval' else 'VGGFace2')}: ")
    assert len(process.stderr.splitlines()) == 1
    assert "--root names the folder" in process.stderr
    assert process.stdout == ""


def test_json_and_chart_of_one_name_are_refused(run, tmp_path):
    words = ["--json", tmp_path / "a.png", "--chart", tmp_path / "b" / ".." / "a.png"]
    process = run("bench", "speed", "step", "--quick", *words)
    assert process.returncode == 2
    assert "one would overwrite the other" in process.stderr


def test_a_chart_is_a_png_by_its_name_too(run, tmp_path):
    process = run("bench", "speed", "step", "--quick", "--chart", tmp_path / "speed.svg")
    assert process.returncode == 2
    assert f"--chart {tmp_path / 'speed.svg'}: the chart is a PNG; name a file that ends in .png" in process.stderr


def test_a_batch_has_no_more_identities_than_the_data(run):
    process = run("bench", "speed", "step", "--quick", "--batch-size", 8632)
    assert process.returncode == 2
    assert "2<=x<=8631" in process.stderr


def test_help_says_what_a_stage_needs(run):
    found = {
        stage: " ".join(run("bench", "speed", stage, "--help").stdout.split()) for stage in (*STAGES, "all", "scale")
    }
    for stage, text in found.items():
        needs = {"eval": "LFW", "all": "VGGFace2 and LFW"}.get(stage, "VGGFace2")
        assert f"Folder with {needs} in it to take faces from." in text
    assert "about 3 GB in $TMPDIR" in found["scale"]


@pytest.mark.parametrize("end", [KeyboardInterrupt(), ValueError("late")], ids=["interruption", "failure"])
def test_what_was_measured_before_the_end_is_kept(tmp_path, capsys, end):
    def stage(**options):
        yield timing_of()
        raise end

    json_file, chart = tmp_path / "a.json", tmp_path / "a.png"
    with pytest.raises(type(end)) as caught:
        report([stage], [], root=None, rounds=None, quick=False, json_file=json_file, chart=chart)
    assert "\nA step " in capsys.readouterr().out
    assert [timing["title"] for timing in json.loads(json_file.read_text())] == ["A step"]
    assert chart.read_bytes().startswith(b"\x89PNG")
    if isinstance(end, KeyboardInterrupt):
        assert f"is above and in {json_file} and in {chart}" in caught.value.__notes__[0]


def test_a_chart_that_cannot_be_written_is_not_said_to_be(tmp_path, monkeypatch):
    def stage(**options):
        yield timing_of()
        raise KeyboardInterrupt

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("benchmarks.speed.results.write_chart", full)
    json_file, chart = tmp_path / "a.json", tmp_path / "a.png"
    with pytest.raises(CommandError) as caught:
        report([stage], [], root=None, rounds=None, quick=False, json_file=json_file, chart=chart)
    assert str(caught.value) == (
        f"--chart {chart}: cannot be written: No space left on device;"
        f" what was measured until then, tables: 1, is above and in {json_file}"
    )


def test_a_failure_tells_what_was_measured_before_it(tmp_path, capsys):
    def stage(**options):
        yield timing_of()
        raise WorkerError("a worker process died (out of memory?)")

    with pytest.raises(CommandError, match=r"^a worker .*; what was measured until then, tables: 1, is above$"):
        report([stage], [], root=None, rounds=None, quick=False, json_file=None, chart=None)


def test_a_table_that_cannot_be_printed_is_in_the_json(tmp_path, monkeypatch):
    def stage(**options):
        yield timing_of()

    def closed(text, **where):
        if "A step" in text:
            raise BrokenPipeError

    monkeypatch.setattr("click.echo", closed)
    with pytest.raises(BrokenPipeError):
        report(
            [stage], [], root=None, rounds=None, quick=False, json_file=tmp_path / "a.json", chart=tmp_path / "a.png"
        )
    assert [timing["title"] for timing in json.loads((tmp_path / "a.json").read_text())] == ["A step"]
    assert (tmp_path / "a.png").exists()


def test_a_scratch_folder_that_cannot_be_used_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    monkeypatch.setattr(tempfile, "tempdir", None)  # where Python remembers it
    with pytest.raises(
        CommandError, match=r"^\$TMPDIR .*none: cannot be written to; name a folder that can, or unset it$"
    ):
        report([], [], root=None, rounds=None, quick=True, json_file=None, chart=None)


def test_ctrl_c_amid_the_training_that_a_step_is_timed_on_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr("model.training.loop.train", lambda batches, state, run: 3)  # as it ends when it is asked to
    options = {"rounds": 1, "quick": True, "backbone": None, "batch_size": None, "device": "cpu", "compile": False}
    with pytest.raises(KeyboardInterrupt):
        next(step(root=None, folder=tmp_path, **options))


def test_networks_are_held_one_at_a_time_for_their_memory_and_shared_for_their_time(shard_set, monkeypatch):
    monkeypatch.setitem(speed_gpu._BATCHES, "cpu", 1)
    built, alive, most = [], weakref.WeakSet(), []

    class Network:
        def __init__(self, kind):
            built.append(kind)
            alive.add(self)

        def __call__(self, images, labels):
            most.append(len(alive))

    class Memory:
        def restart(self):
            assert not alive

        def peak(self):
            return 0

    ways = functools.partial(speed_gpu.training_ways, ShardIndex(shard_set), batch=2, device="cpu", threads=1)
    names = [
        "plain step, fp32",
        *(f"{way}, {kind}" for kind in ("fp32", "bf16") for way in ("step alone", "loader and step")),
    ]
    facts = peak_memory(ways(Network), Memory())
    assert list(facts) == [f"PyTorch's peak memory, {name}" for name in (*names, "loader alone")]
    assert built == ["plain step", "fp32", "fp32", "bf16", "bf16"]
    assert most == [1] * 5
    built.clear()
    for build in ways(functools.cache(Network)).values():
        build()
    assert built == ["plain step", "fp32", "bf16"]
