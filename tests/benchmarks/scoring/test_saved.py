"""Validation of result files."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import os
import resource

import numpy as np
import pytest

from benchmarks.errors import ProtocolError
from benchmarks.scoring.arrays import decode_array, encode_array
from benchmarks.scoring.comparison import compare_networks, read_networks
from benchmarks.scoring.curves import MAX_FOLDS
from benchmarks.scoring.saved import read_results
from tests.benchmarks.runs import score


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
def scored(_demo):
    folders = {"tinyface": "TinyFace", "qmul": "QMUL-SurvFace", "qmul-id": "QMUL-SurvFace"}
    return {name: score(name, _demo / folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def record(scored):
    return scored["tinyface"].to_dict()


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["benchmark"], ["qmul"], "benchmark: list, expected str"),
        (["metrics"], [], "metrics: list, expected dict"),
        (["metrics", "rank1"], None, "rank1: NoneType, expected float or int"),
        (["metrics", "rank1"], "0.5", "rank1: str, expected float or int"),
        (["metrics", "rank1"], float("nan"), "metrics rank1: nan, expected a fraction"),
        (["metrics", "rank1"], ..., "rank1: missing"),
        (["metrics", "rank1"], 0.123, "metrics rank1: 0.123, but its samples give "),
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


def test_fold_numbers_take_no_memory(scored, tmp_path):
    """A small file may state any fold number, and put every pair into a fold of its own."""
    result = scored["qmul"]
    record = result.to_dict()
    count = len(result.settings["{}"].folds)
    for folds in (np.arange(count), np.arange(count) * (MAX_FOLDS // count), np.eye(count, dtype=int)[-1] * 32767):
        samples = dataclasses.replace(result.settings["{}"], folds=folds.astype(np.int16))
        record["samples"]["{}"], record["metrics"] = samples.to_dict(), samples.metrics()
        (tmp_path / "x.json").write_text(json.dumps(record))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        compare_networks(read_networks([tmp_path / "x.json"] * 2))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # kB


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("identities", lambda array: array + (1 << 21)),
        ("reported", lambda array: np.arange(1, 102, dtype=np.int32)),
        ("reported", lambda array: array * 0),
    ],
)
def test_what_would_take_time_is_refused(record, tmp_path, name, change):
    content = copy.deepcopy(record)
    samples = content["samples"]["{}"]
    samples[name] = encode_array(change(decode_array(samples[name])))
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(ProtocolError, match=rf"x\.json: .*samples {{}}: {name}: "):
        read_results(tmp_path / "x.json")


def test_truth_values_are_0_or_1():
    encoded = {**encode_array(np.ones(4, bool)), "data": base64.b64encode(b"\0\1\2\1").decode()}
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        decode_array(encoded)


def test_a_pipe_is_no_results_file(tmp_path):
    os.mkfifo(tmp_path / "x.json")
    with pytest.raises(ProtocolError, match=r"x\.json: not a regular file; expected a file written by bench --json"):
        read_results(tmp_path / "x.json")


WILD = [
    None,
    True,
    -1,
    10**30,
    1e308,
    "",
    "x" * 3000,
    "\x1b[31m",
    [],
    {},
    [[[]]],
    {"a": {}},
    "|O",
    "<f8",
    [10**9, 10**9],
]


def mutated(value, rng):
    """A copy of a JSON value with one part replaced."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = list(value)[int(rng.integers(len(value)))]
        if rng.random() < 0.1:
            return {name: inner for name, inner in value.items() if name != key}
        return {**value, key: mutated(value[key], rng)}
    return WILD[int(rng.integers(len(WILD)))]


@pytest.mark.parametrize("name", ["tinyface", "qmul", "qmul-id"])
@pytest.mark.parametrize(("count", "seed"), [(60, 0), pytest.param(800, 1, marks=pytest.mark.heavy)])
def test_damaged_results_give_named_errors(scored, tmp_path, name, count, seed):
    record, rng, path = scored[name].to_dict(), np.random.default_rng(seed), tmp_path / "x.json"
    text, refused = json.dumps(record).encode(), 0
    for _ in range(count):
        data = bytearray(text)
        if rng.random() < 0.5:
            data = json.dumps(mutated(record, rng)).encode()
        else:
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            assert len(read_results(path)) == 1
        except ProtocolError:
            refused += 1
    assert refused > count // 4
