"""The file of a calibration: read back as written; refused if it is anything else."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.errors import SearchError
from benchmarks.search.calibration import read_calibration
from shards.files import digest


def test_a_calibration_is_read_back_as_it_was_written(calibrated, tmp_path):
    calibration = calibrated(slope=1 / 3, source={"pairs": "caf\u00e9 \n", "probes_down": "8"})
    path = tmp_path / "new" / "c.json"
    calibration.write(path)
    again = read_calibration(path)
    assert again == calibration
    scores = np.linspace(-1, 1, 50)
    np.testing.assert_array_equal(again.fitted.ratios(scores).high, calibration.fitted.ratios(scores).high)
    record = json.loads(path.read_text())
    assert (record["kind"], record["version"], record["date"]) == ("lrfr calibration", 1, "2026-01-01")


def edited(path, change, *, sealed):
    record = json.loads(path.read_text())
    stated = record.pop("file_digest")
    change(record)
    path.write_text(json.dumps({**record, "file_digest": digest(record) if sealed else stated}))


def test_an_edited_calibration_is_refused(calibrated, tmp_path):
    path = tmp_path / "c.json"
    calibrated().write(path)
    edited(path, lambda record: record["fitted"]["line"].update(slope=99.0), sealed=False)
    with pytest.raises(SearchError) as error:
        read_calibration(path)
    assert str(error.value) == (
        f"{path}: not a calibration (damaged or edited: its digest does not match); expected a file written by calibrate"
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda record: record.update(kind="x"), "no field kind with the value"),
        (lambda record: record.update(version=2), "its version is not 1"),
        (lambda record: record.pop("fitted"), "'fitted'"),
        (lambda record: record["fitted"]["line"].update(slope=float("nan")), "slope: a value is not a finite number"),
        (lambda record: record["fitted"]["line"].update(slope=10**400), "slope: a value is not a finite number"),
        (lambda record: record["fitted"].update(cllr=10**400), "cllr: a value is not a finite number"),
        (lambda record: record["fitted"]["line"].update(bounds=[1]), "bounds: expected a list of numbers"),
        (lambda record: record["fitted"]["line"].update(scores="ab"), "scores: expected a list of numbers"),
        (lambda record: record["fitted"]["curve_low"].pop(), "curve_scores: not sorted, or not of the same length"),
        (lambda record: record["fitted"]["curve_scores"].reverse(), "curve_scores: not sorted"),
        (lambda record: record["fitted"].update(curve_low=[0.0] * 10**5), "curve_low: expected a list of numbers"),
        (lambda record: record["fitted"].update(more=1), "Fitted.__init__() got an unexpected keyword"),
        (lambda record: record["fitted"].pop("min_cllr"), "Fitted.__init__() missing 1 required"),
        (lambda record: record["fitted"].update(cllr=True), "cllr: a value is not a finite number"),
        (lambda record: record.update(network=[1]), "'list' object has no attribute"),
        (lambda record: record["counts"].update(people=1.0), "counts: expected values of type int"),
        (lambda record: record["counts"].update(people="1"), "Cannot specify ',' with 's'"),
        (lambda record: record["counts"].pop("people"), "'people'"),
        (lambda record: record["source"].pop("pairs"), "'pairs'"),
    ],
)
def test_other_content_is_refused_even_with_its_digest(calibrated, tmp_path, change, reason):
    path = tmp_path / "c.json"
    calibrated().write(path)
    edited(path, change, sealed=True)
    with pytest.raises(SearchError) as error:
        read_calibration(path)
    assert str(error.value).startswith(f"{path}: not a calibration ({reason}")


def test_whole_numbers_of_any_size_are_numbers(calibrated, tmp_path):
    """NumPy keeps those above 64 bits as objects, of which it interpolates none."""
    path = tmp_path / "c.json"
    calibrated().write(path)
    edited(path, lambda record: record["fitted"]["curve_high"].__setitem__(-1, 10**30), sealed=True)
    ratios = read_calibration(path).fitted.ratios(np.array([0.0, 1.0]))
    assert np.isfinite(ratios.high).all()


@pytest.mark.parametrize("content", [b"", b"[1]", b"PAR1", b"{" * 100_000, b'{"kind": "lrfr calibration"}', b"\xff"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(SearchError, match=r"c\.json: not a calibration \(.*\); expected a file written by calibrate$"):
        read_calibration(tmp_path / "c.json")
    with pytest.raises(SearchError, match="No such file"):
        read_calibration(tmp_path / "none.json")
