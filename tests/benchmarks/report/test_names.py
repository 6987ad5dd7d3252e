"""Names from data sets and results are shown without control characters, HTML and Markdown."""

from __future__ import annotations

import json
import re

import pytest
import scipy.io

from benchmarks.report import figures
from benchmarks.report.page import write_report
from tests.benchmarks.runs import FACTS, score, write_result

ESCAPE = "\x1b]0;owned\x07\x1b[31m\n"
SHOWN = r"\x1b]0;owned\x07\x1b[31m\n"


@pytest.fixture
def qmul(demo):
    """The pair lists name images that do not exist, with names of control characters."""
    root = demo("QMUL-SurvFace")
    path = root / "Face_Verification_Test_Set" / "positive_pairs_names.mat"
    pairs = scipy.io.loadmat(path)["positive_pairs_names"]
    pairs[0, 0] = f"1_<b>{ESCAPE[:-1]}*.jpg"
    scipy.io.savemat(path, {"positive_pairs_names": pairs})
    return root


def test_scoring_and_its_report_show_names_escaped(qmul, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(figures, "drawing", lambda _: {"png": b""})
    result = score("qmul", qmul, allow_missing=True)
    said = capsys.readouterr().err
    assert f"1_<b>{SHOWN[:-2]}*.jpg: not found" in said
    assert said.replace("\n", "").isprintable()
    page = write_report([result], tmp_path / "report")
    for path, shown in ((page, "1_&lt;b&gt;"), (page.with_name("report.md"), r"1\_&lt;b&gt;")):
        text = path.read_text()
        assert shown in text
        assert text.replace("\n", "").isprintable()


def test_comparisons_show_names_escaped(demo, tmp_path, run):
    result = score("tinyface", demo("TinyFace"), checkpoint={**FACTS, "backbone": ESCAPE})
    path = write_result(tmp_path / "a.json", result)
    content = json.loads(path.read_text())
    content["title"] = ESCAPE
    (tmp_path / f"b{ESCAPE}.json").write_text(json.dumps(content))
    content["data"] = ESCAPE
    content["doubts"] = [f"<script>{ESCAPE}"]
    content["checkpoint"]["training"] = {ESCAPE: [ESCAPE, "<img src=x>"]}
    content["measurement"] = {"command": f"<b>{ESCAPE}", "date": ["x"]}
    (tmp_path / f"b{ESCAPE}.json").write_text(json.dumps(content))
    done = run("bench", "compare", path, tmp_path / f"b{ESCAPE}.json", "--report", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    for name in ("report.html", "report.md", "report.tex", "report.csv"):
        text = (tmp_path / "report" / name).read_text()
        assert "owned" in text
        assert text.replace("\n", "").isprintable(), name
    page = (tmp_path / "report" / "report.html").read_text()
    assert not set(re.findall(r"<(script|b|img)[ >]", re.sub(r"<img alt=\"[^\"]*\" src=\"data:", "", page)))
    assert done.stdout.count(SHOWN) >= 3
    assert done.stdout.replace("\n", "").isprintable()
