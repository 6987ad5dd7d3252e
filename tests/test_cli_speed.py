"""bench speed: what it prints and writes. No time is asserted anywhere: machines differ."""

from __future__ import annotations

import json

import pytest

STAGES = {"build", "loader", "step", "eval"}


def timings_of(run, folder, *words):
    process = run("bench", "speed", *words, "--quick", "--json", folder / "speed.json", "--chart", folder / "speed.png")
    assert process.returncode == 0, process.stderr
    assert (folder / "speed.png").read_bytes().startswith(b"\x89PNG")
    timings = json.loads((folder / "speed.json").read_text())
    for timing in timings:
        assert timing["title"] in process.stdout
        assert timing["facts"]["cores"]
        for contender in timing["contenders"].values():
            assert len(contender["seconds"]) == 2
            assert contender["rate"] > 0
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
    assert process.stderr.splitlines()[-1].startswith(f"Error: {tmp_path}/VGGFace2: not a folder")
    assert len(process.stderr.splitlines()) == 1
