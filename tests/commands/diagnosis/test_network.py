"""doctor --network, and the warning of bench: a wrong guess is reported."""

from __future__ import annotations

import itertools
import re
import warnings

import pytest
import torch
from torch import nn

from commands.diagnosis.network import as_option
from pipeline.demo.generate import write_demo_data
from pipeline.named_specs import NAMED_SPECS
from pipeline.sources.spec_file import read_spec
from pipeline.spec import Preprocessing
from tests.processes import error_of


class Coarse(nn.Module):
    """Details of pixels from 0 to 255 in steps of 6: in a smaller range it sees nothing."""

    def forward(self, pixels):
        cells = nn.functional.avg_pool2d(pixels, 2)
        around = nn.functional.avg_pool2d(cells, 9, stride=1, padding=4)
        return torch.round((cells - around)[:, :, 18:52, 10:46] / 6).flatten(1)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    out = tmp_path_factory.mktemp("faces")
    write_demo_data(out, identities=10, images=4, seed=0)
    return out


@pytest.fixture
def coarse(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(Coarse(), torch.zeros(2, 3, 112, 112)).save(str(tmp_path / "x.pt"))


def test_doctor_says_what_a_network_expects(run, faces, coarse, tmp_path):
    done = run("doctor", faces, "--network", "x.pt", "--json", "found.json")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Network x.pt"
    assert lines[1].startswith(
        "  ok   torchscript, embeddings of 3,672 numbers; assumed: template arcface, 112 px, RGB, (x /"
    )
    assert re.fullmatch(
        r"  warn x\.pt probably expects .*mean 0, not 0\.5, std 0\.003922, not 0\.5.*: separation [\d.]+ instead of 0\.0 on 40 pairs"
        " of LFW",
        lines[2],
    )
    option = lines[3].removeprefix("       -> --preprocessing FILE.toml, with the lines: ")
    (tmp_path / "mine.toml").write_text(option.replace("; ", "\n"))
    assert lines[-1] == "0 failures, 1 warning"
    assert (tmp_path / "found.json").exists()
    again = run("doctor", faces, "--network", "x.pt", "--preprocessing", "mine.toml")
    assert "  ok   no other preprocessing is surely better: separation " in again.stdout
    assert again.stdout.splitlines()[-1] == "nothing is wrong"


@pytest.mark.heavy
def test_doctor_without_pairs_takes_generated_faces(run, coarse, tmp_path, monkeypatch):
    done = run("doctor", tmp_path, "--network", "x.pt")
    assert f"note no pairs of faces in {tmp_path}: generated faces, which networks of real ones tell" in done.stdout
    assert "mean 0, not 0.5" in done.stdout
    assert error_of(run("doctor", tmp_path, "--network", "none.pt")) == (
        "Error: none.pt: not found; expected a checkpoint file"
    )


def test_bench_warns_of_an_assumed_preprocessing_that_is_probably_wrong(run, faces, coarse):
    done = run("bench", "lfw", "--root", faces / "LFW", "--network", "x.pt")
    assert done.returncode == 0, done.stderr
    assert "x.pt: states no preprocessing; assumed: template arcface, 112 px" in done.stderr
    assert re.search(r"^warning: x\.pt probably expects .*mean 0, not 0\.5, std 0\.003922, not 0\.5", done.stderr, re.M)
    given = run("bench", "lfw", "--root", faces / "LFW", "--network", "x.pt", "--preprocessing", "arcface")
    assert "warning" not in given.stderr


def test_bench_tries_nothing_before_the_alignment_is_known(run, faces, coarse, tmp_path):
    images = sorted((faces / "LFW").rglob("*.jpg"))[:40]
    rows = [f"{first},{second},{number % 2}\n" for number, (first, second) in enumerate(itertools.pairwise(images))]
    (tmp_path / "pairs.csv").write_text("path1,path2,same\n" + "".join(rows))
    done = run("bench", "pairs", "pairs.csv", "--root", faces, "--network", "x.pt", "--sizes", "full")
    assert "say how the images are aligned" in error_of(done)
    assert "warning: " not in done.stderr
    assert "trials" not in done.stderr


@pytest.mark.parametrize(
    "spec",
    [
        *NAMED_SPECS.values(),
        Preprocessing(size=96, mean=(0.1, 0.2, 0.3), color="BGR"),
        NAMED_SPECS["dlib"].resized(112),
        Preprocessing.unaligned(size=64),
    ],
    ids=str,
)
def test_a_preprocessing_is_printed_as_an_option(spec, tmp_path):
    said = as_option(spec)
    if (lines := said.removeprefix("FILE.toml, with the lines: ")) != said:
        (tmp_path / "mine.toml").write_text(lines.replace("; ", "\n"))
        said = tmp_path / "mine.toml"
    found = read_spec(said)
    assert str(found) == str(spec)
    assert found.points == (spec.points and tuple(pytest.approx(point, rel=1e-5) for point in spec.points))
