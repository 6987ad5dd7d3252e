"""Names from data are shown on the terminal without control characters, whatever shows them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from shards.files import file_facts
from shards.schema import Manifest
from tests.processes import error_of
from tests.shards.sealed import edit_record

ESCAPE = "\x1b]0;owned\x07\x1b[31m\n"
SHOWN = r"\x1b]0;owned\x07\x1b[31m\n"


@pytest.fixture
def folder(tmp_path):
    """Images in folders of identities, and an entry with a name of control characters."""
    root = tmp_path / "training_set"
    for person in "ab":
        (root / person).mkdir(parents=True)
        cv2.imwrite(str(root / person / "1.jpg"), np.full((32, 32, 3), 90, np.uint8))
    (root / "a" / f"{ESCAPE}.txt").touch()
    (root / "b" / f"{ESCAPE}.jpg").write_text("no image")
    return tmp_path


def test_build_and_verify_show_names_escaped(folder, tmp_path, run):
    out = tmp_path / "set"
    done = run("build-shards", "--source", "qmul", "--root", folder, "--out", out, "--executor", "serial")
    assert done.returncode == 0, done.stderr
    assert f"{SHOWN}.txt" in done.stderr
    (out / f"shard-{ESCAPE}").touch()
    edit_record(out / "shard-000000.done.json", statuses={f"{ESCAPE}": 3})
    facts = file_facts(out / "shard-000000.done.json")
    edit_record(out / "manifest.json", files={**Manifest.read(out).files, "shard-000000.done.json": facts})
    checked = run("verify", out)
    assert f"shard-{SHOWN}: not part of this set" in checked.stdout
    for text in (done.stderr, checked.stdout, checked.stderr):
        assert text.replace("\n", "").isprintable()
    edit_record(out / "manifest.json", statuses={"ok": 2, ESCAPE: 1}, source=ESCAPE)
    shown = run("inspect", out, "--out", tmp_path / "sheet.png").stdout
    assert shown.count(SHOWN) == 2
    assert shown.replace("\n", "").isprintable()


def test_error_lines_show_names_escaped(tmp_path, run):
    line = error_of(run("verify", tmp_path / f"x{ESCAPE}"))
    assert SHOWN in line
    assert line.isprintable()
