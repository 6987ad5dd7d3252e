"""Validation of result files."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from benchmarks.errors import ProtocolError
from benchmarks.scoring.samples import decode_array, encode_array
from benchmarks.scoring.saved import read_results
from tests.benchmarks.conftest import score


@pytest.mark.parametrize(
    "text", ["", "nonsense", "{}", "[1]", '{"benchmark": "qmul", "samples": {"{}": {"kind": "x"}}}']
)
def test_an_invalid_file_gives_a_one_line_error(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ProtocolError, match=r"x\.json: not a result written by bench --json") as error:
        read_results(tmp_path / "x.json")
    assert "\n" not in str(error.value)
    with pytest.raises(ProtocolError, match=r"nothing\.json: No such file"):
        read_results(tmp_path / "nothing.json")


@pytest.fixture(scope="module")
def record(_demo):
    return score("tinyface", _demo / "TinyFace").to_dict()


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["benchmark"], ["qmul"], "benchmark: list, expected str"),
        (["metrics"], [], "metrics: list, expected dict"),
        (["metrics", "rank1"], None, "rank1: NoneType, expected float or int"),
        (["metrics", "rank1"], "0.5", "rank1: str, expected float or int"),
        (["metrics", "rank1"], float("nan"), "metrics rank1: nan, expected a fraction"),
        (["metrics", "rank1"], ..., "rank1: missing"),
        (["checkpoint"], "x.pt", "checkpoint: str, expected dict"),
        (["checkpoint", "step"], "7", "step: str, expected int or NoneType"),
        (["checkpoint", "precision"], ..., "precision: missing"),
        (["partial"], "no", "partial: str, expected bool"),
        (["samples"], {}, "samples: empty"),
        (["samples"], {"{0.__class__}": {}}, "samples {0.__class__}: not a valid setting name"),
        (["samples", "{}", "kind"], "x", "samples {}: 'x' is missing or unknown"),
        (["samples", "{}", "questions"], ..., "questions"),
        (["samples", "{}", "ranks"], [1], "samples {}: "),
        (["samples", "{}", "ranks", "dtype"], "|O", "dtype '|O', expected one of"),
        (["samples", "{}", "ranks", "shape"], [10**30], "samples {}: "),
    ],
)
def test_every_field_is_validated(record, tmp_path, keys, value, message):
    content = copy.deepcopy(record)
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    if value is ...:
        del inner[keys[-1]]
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(ProtocolError) as error:
        read_results(tmp_path / "x.json")
    assert str(error.value).startswith(f"{tmp_path}/x.json: not a result written by bench --json (")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ranks", lambda array: array[:-1]),
        ("ranks", lambda array: array * 0),
        ("ranks", lambda array: array.astype(np.float32)),
        ("identities", lambda array: array - 5),
        ("identities", lambda array: array + (1 << 30)),
        ("identities", lambda array: array[:0]),
        ("precisions", lambda array: array * np.nan),
        ("precisions", lambda array: array[:-1]),
        ("questions", lambda array: array[:-1]),
    ],
)
def test_every_array_is_validated(record, tmp_path, name, change):
    content = copy.deepcopy(record)
    samples = content["samples"]["{}"]
    samples[name] = encode_array(change(decode_array(samples[name])))
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(ProtocolError, match=rf"x\.json: not a result written by bench --json \(samples {{}}: {name}: "):
        read_results(tmp_path / "x.json")


def test_deep_nesting_and_empty_results_give_a_one_line_error(tmp_path):
    (tmp_path / "x.json").write_text("[" * 200_000)
    with pytest.raises(ProtocolError, match=r"x\.json: not a result written by bench --json"):
        read_results(tmp_path / "x.json")
    (tmp_path / "x.json").write_text('{"benchmark": "all", "results": []}')
    with pytest.raises(ProtocolError, match=r"x\.json: contains no result; expected a file written by bench --json"):
        read_results(tmp_path / "x.json")
