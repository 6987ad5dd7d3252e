"""What a report says about its networks."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.report.networks import methods, network_grid, training_pictures


def with_facts(results, **facts):
    qmul = results["qmul"]
    return dataclasses.replace(qmul, checkpoint={**qmul.checkpoint, **facts})


def test_a_row_for_each_network(results):
    grid = network_grid([with_facts(results, name="a", parameters=1234), with_facts(results, name="b", step=None)])
    assert grid.header == ["", "backbone", "step", "parameters", "training data", "digest", "scored"]
    assert [row[:-1] for row in grid.rows] == [
        ["a", "spherenet4", "7", "1,234", "-", "00ff"],
        ["b", "spherenet4", "-", "-", "-", "00ff"],
    ]
    assert all(row[-1].endswith(" UTC") for row in grid.rows)


CURVES = {"step": [1, 2, 3], "loss": [3.0, 2.0, 1.0], "ce@8": [2.0, 1.5, 1.0], "lr": [0.1, 0.1, 0.01]}


def test_training_curves_of_the_networks_that_have_them(results):
    pictures = training_pictures([with_facts(results), with_facts(results, curves=CURVES, name="mine")])
    assert [(picture.stem, picture.alt) for picture in pictures] == [("training-2", "training curves of mine")]
    svg = pictures[0].files["svg"]
    assert b">ce, 8 px<" in svg
    assert b">learning rate<" in svg
    assert b"Training of mine" in svg


@pytest.mark.parametrize(
    "curves",
    [
        None,
        7,
        {},
        {"step": [1]},
        {"step": [1, 2], "loss": [1, "x"]},
        {"step": [1, 2], "loss": [1, 2, 3]},
        {"step": [1, float("nan")], "loss": [1, 2]},
        {"step": [1, 2, 3], "loss": [1e308, -1e308, 0]},
        {"step": [1, 10**400], "loss": [1, 2]},
        {"loss": [1, 2]},
        {"step": [1, 2], "loss": [[1], [2]]},
        {"step": {"a": 1}, "loss": [1, 2]},
        [[1, 2]],
    ],
)
def test_what_are_no_curves_is_not_drawn(results, curves):
    """A file may hold anything."""
    assert training_pictures([with_facts(results, curves=curves)]) == []


def test_facts_of_any_kind_are_shown(results):
    facts = {"parameters": [], "training": {"a": None, "b": [1, {"c": 2.5}], "d": True}, "digest": "", "step": 1.5}
    (grid,) = methods([with_facts(results, **facts)]).grids
    rows = dict(grid.rows)
    assert rows["training configuration"] == 'a: -; b: [1, {"c": 2.5}]; d: true'
    assert rows["step"] == "1.5"
    assert not {"digest", "parameters"} & set(rows)
