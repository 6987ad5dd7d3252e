"""Published results and the columns of tables."""

from __future__ import annotations

import dataclasses

from benchmarks import BENCHMARKS
from benchmarks.report.published import PUBLISHED, TABLES, comparable_rows


def test_every_published_row_has_a_source_and_metrics_that_a_table_shows():
    assert set(PUBLISHED) == set(TABLES) == set(BENCHMARKS)
    assert [len(PUBLISHED[name]) for name in ("lfw", "scface", "qmul")] == [3, 5, 3]
    rows = [(name, row) for name, published in PUBLISHED.items() for row in published]
    assert len(rows) >= 15
    for name, row in rows:
        shown = {column for table in TABLES[name] for column in table.columns}
        assert row.source
        assert row.url.startswith("https://")
        assert row.metrics
        assert set(row.metrics) <= shown, row.system
        assert all(0 < value <= 1 for value in row.metrics.values())


def test_no_published_result_is_shown_with_generated_faces(results):
    for result in results.values():
        assert comparable_rows(result) == []
        assert comparable_rows(dataclasses.replace(result, caveats=[])) == PUBLISHED[result.benchmark]


def test_subjects_51_to_130_have_tables_and_figures_of_their_own():
    """400 probes a distance, in place of 650: publications use either."""
    rows = [{"51-130" in name for name in row.metrics} for row in PUBLISHED["scface"]]
    tables = [({"51-130" in name for name in table.columns}, table.figure) for table in TABLES["scface"]]
    assert [len(kinds) for kinds in rows] == [1] * 5
    assert tables == [({False}, "distance"), ({True}, "distance-51-130")]


def test_every_column_is_a_metric_of_the_benchmark(results):
    for result in results.values():
        shown = {column for table in TABLES[result.benchmark] for column in table.columns}
        assert shown <= set(result.metrics)
        assert result.main in result.metrics


def test_figures_of_the_publications():
    paper, *_ = PUBLISHED["lfw"]
    assert list(paper.metrics.values()) == [0.948, 0.976, 0.982, 0.981, 0.991]
    assert paper.source == "Lai & Lam, Deep Siamese network for low-resolution face recognition, APSIPA ASC 2021"
    assert paper.note == "its result at 8 px depends on the resampling filter of Pillow before 7.0"
    assert PUBLISHED["scface"][-1].metrics["rank1@d1/51-130"] == 0.868
    assert PUBLISHED["qmul"][2].metrics["tar@far=0.001"] == 0.1188
    assert PUBLISHED["qmul-id"][0].metrics["auc"] == 0.354
    assert PUBLISHED["tinyface"][1].metrics == {"rank1": 0.6462, "rank5": 0.6915}
