"""What a source has to give: the catalog, and the example of the documentation."""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from pathlib import Path

import cv2
import pytest

from pipeline.build import build, options_for
from pipeline.sources.catalog import SOURCES, find_source
from pipeline.sources.file_readers import ImageTree
from pipeline.sources.source import SourceError
from shards.schema import Manifest
from shards.verify import verify
from tests.processes import REPOSITORY
from tests.shard_sets import rows_of

PAGE = REPOSITORY / "docs" / "guide" / "sources.md"


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_has_the_name_it_is_registered_by(name):
    source = find_source(name)
    assert source.name == name
    assert set(source.templates) <= {"seed", "arcface", "none"}
    assert source.default_template in source.templates or source.template_hint
    assert f"| `{name}` |" in PAGE.read_text()


def test_a_tree_is_sent_to_workers_without_its_caches(vggface2):
    tree = ImageTree(vggface2, ("train", "test", ""))
    before = len(pickle.dumps(tree))
    data = tree.read("n000001/0001_01")
    assert len(pickle.dumps(tree)) == before
    assert pickle.loads(pickle.dumps(tree)).read("n000001/0001_01") == data


@pytest.fixture
def zip_source(tmp_path, monkeypatch):
    """The example of the page, registered as it says."""
    code, line = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "zip_of_the_page.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    registered = {}
    exec(line, registered)  # a dictionary of literals
    ((path, text),) = registered["SOURCES"].values()
    monkeypatch.setitem(SOURCES, "zip", (path.replace("pipeline.sources.zip", "zip_of_the_page"), text))
    return find_source("zip")


def test_the_source_of_the_page_builds(zip_source, vggface2, tmp_path):
    archive = tmp_path / "faces.zip"
    paths = sorted((vggface2 / "train").rglob("*.jpg"))
    with zipfile.ZipFile(archive, "w") as writer:
        for path in paths:
            writer.write(path, path.relative_to(vggface2 / "train"))
        writer.writestr("readme.txt", "45 faces")
    data = bytearray(archive.read_bytes())
    data[data.index(paths[7].read_bytes()) + 3000] ^= 1
    archive.write_bytes(data)
    out, digest = tmp_path / "out", hashlib.sha256(data).hexdigest()
    reader = zip_source.rows(archive, (), aligning=False).reader
    assert pickle.loads(pickle.dumps(reader)).read(b"1") == paths[1].read_bytes()
    build(options_for("zip", root=archive, out=out, executor="serial", images_per_shard=20))
    manifest = Manifest.read(out)
    assert (manifest.source, manifest.statuses) == ("zip", {"ok": 44, "unreadable-image": 1})
    rows = rows_of(out)
    (bad,) = (row for row in rows if row["status"] != "ok")
    assert bad["key"] == f"{paths[7].parent.name}/{paths[7].stem}"
    assert "damaged in the zip file: Bad CRC-32" in bad["error_message"]
    assert {row["width"] for row in rows if row["status"] == "ok"} == {cv2.imread(str(paths[0])).shape[1]}
    assert list(verify(out, full=True)) == []
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == digest


def test_the_source_of_the_page_refuses_what_is_no_zip_file(zip_source, tmp_path):
    (tmp_path / "faces.zip").write_text("no zip")
    with pytest.raises(SourceError, match="not a zip file"):
        options_for("zip", root=tmp_path / "faces.zip", out=tmp_path / "out")
    with pytest.raises(SourceError, match="its images are resized whole, not aligned; omit --template"):
        options_for("zip", root=Path("x"), out=tmp_path / "out", template="seed")
