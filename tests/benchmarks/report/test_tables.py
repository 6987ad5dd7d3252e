"""Tables and sentences of a result."""

from __future__ import annotations

import dataclasses
import re

from benchmarks.report.tables import facts, result_grids, result_text, threshold_grids, warnings
from benchmarks.scoring.samples import unresolved_metrics
from tests.benchmarks.runs import score


def test_the_printed_table(results):
    lines = result_text(results["qmul"]).splitlines()
    assert lines[0].startswith("QMUL-SurvFace verification: TAR at FAR, %  ")
    assert lines[0].split("  ")[-1] == "0.1 %"
    assert lines[2].startswith("spherenet4, step 7  ")
    assert lines[5].startswith("QMUL-SurvFace verification, %  ")
    assert lines[5].split()[-3:] == ["accuracy", "AUC", "EER"]
    assert len({len(line) for line in lines[:4]}) == 1


def test_published_results_are_shown_with_comparable_ones_only(results):
    comparable = dataclasses.replace(results["qmul"], caveats=[])
    lines = result_text(comparable).splitlines()
    assert [line.split()[-4] for line in lines[4:7]] == ["75.09", "75.15", "77.56"]
    assert [line.split()[-2] for line in lines[12:15]] == ["80.03", "80.06", "82.17"]
    assert not re.search("Lai|released|reproduced", result_text(results["qmul"]))
    assert [grid.published for grid in result_grids([comparable])] == [3, 3]
    assert [grid.published for grid in result_grids([results["qmul"]])] == [0, 0]


def test_partial_results_are_marked(demo):
    root = demo("TinyFace")
    sorted((root / "Testing_Set" / "Probe").iterdir())[0].unlink()
    text = result_text(score("tinyface", root, intervals=True, allow_missing=True))
    assert "spherenet4, step 7 (partial)  " in text
    assert re.search(r"Partial: 1 of \d+ images could not be used; pairs or probes left out: 1\.", text)


def test_generated_faces_are_a_caveat(results):
    lfw = results["lfw"]
    assert lfw.data.endswith("LFW")
    assert lfw.caveats == ["generated faces"]
    assert warnings(lfw) == ["Not comparable with published results, which are not shown: generated faces."]
    assert facts(lfw)[0].endswith(f"data: {lfw.data} (generated faces)")


def test_other_sizes_than_the_published_ones_are_caveats(demo):
    root = demo("LFW")
    (root / "generated.json").unlink()
    result = score("lfw", root)
    assert (result.data, result.caveats) == (str(root), [f"pairs {result.counts['pairs']}, published 6,000"])
    scface = demo("SCface")
    (scface / "generated.json").unlink()
    gallery, probes, mugshots = score("scface", scface).caveats
    assert re.fullmatch(r"gallery \d+, published 130", gallery)
    assert re.fullmatch(r"probes \d+, published 650", probes)
    assert re.fullmatch(r"mugshots of \d+x\d+ px", mugshots)


def test_comparability_does_not_depend_on_the_folder_s_name(results):
    result = dataclasses.replace(results["lfw"], data="/data/LFW: full (copy)", caveats=[])
    assert warnings(result) == []
    assert facts(result)[0].endswith("data: /data/LFW: full (copy)")


def test_lines_below_the_tables(results):
    by_name = {name: facts(result) for name, result in results.items()}
    assert re.match(r"8 in the gallery, 40 probes a distance, 128 images, 128 preparations; ", by_name["scface"][0])
    assert re.match(r"60 pairs, 30 of them genuine, 10 folds, 32 images, 160 preparations; ", by_name["lfw"][0])
    assert re.match(r"8 in the gallery, of 4 identities, 8 mated probes, 16 unmated", by_name["qmul-id"][0])
    deviation = results["lfw"].metrics["lr-lr/std@20"]
    assert by_name["lfw"][1].startswith("Standard deviation of accuracy over folds, %: 8 px: ")
    assert by_name["lfw"][1].endswith(f"; LR to LR, 20 px: {100 * deviation:.2f}.")
    assert re.fullmatch(r"Standard deviation of accuracy over folds: \d+\.\d\d %\.", by_name["qmul"][1])


def test_an_interval_without_width_is_not_shown(results):
    """All resamples of a perfect ranking have an AUC of 1."""
    result = dataclasses.replace(results["qmul"], intervals={**results["qmul"].intervals, "auc": (1.0, 1.0)})
    grid = result_grids([result])[1]
    assert grid.rows[1][2] == "-"
    assert facts(result)[-1] == "An interval is - where all resamples give the same value."
    assert "interval" not in "".join(facts(results["qmul"]))


def test_thresholds_are_tables_of_rates_and_settings(results):
    high_to_low, low_to_low = threshold_grids([results["lfw"]])
    assert high_to_low.caption == "LFW: thresholds (cosine)"
    assert high_to_low.header == ["", "8 px", "12 px", "16 px", "20 px", "full size"]
    assert [row[0] for row in high_to_low.rows] == ["FAR 10 %", "  95 % interval", "EER", "  95 % interval"]
    assert low_to_low.caption == "LFW: LR to LR, thresholds (cosine)"
    assert low_to_low.header == ["", "8 px", "12 px", "16 px", "20 px"]
    kinds = ("thresholds", "threshold_intervals")
    value, (low, high) = (getattr(results["lfw"], kind)["threshold@eer@8"] for kind in kinds)
    assert (high_to_low.rows[2][1], high_to_low.rows[3][1]) == (f"{value:.3f}", f"{low:.3f} to {high:.3f}")
    assert [row[0] for row in threshold_grids([results["qmul"]])[0].rows[::2]] == ["FAR 30 %", "FAR 10 %", "EER"]
    assert [row[0] for row in threshold_grids([results["qmul-id"]])[0].rows[::2]] == [
        "FPIR 30 %",
        "FPIR 20 %",
        "FPIR 10 %",
    ]
    assert threshold_grids([results["scface"]]) == []


def test_counts_of_one_are_in_the_singular(results):
    result = dataclasses.replace(results["qmul-id"], counts=dict.fromkeys(results["qmul-id"].counts, 1))
    assert facts(result)[0].startswith(
        "1 in the gallery, of 1 identity, 1 mated probe, 1 unmated probe, 1 image, 1 preparation; "
    )


def test_a_metric_that_the_set_cannot_resolve_is_recorded_but_not_shown(results):
    qmul, qmul_id = results["qmul"], results["qmul-id"]
    assert unresolved_metrics(qmul.settings) == ["tar@far=0.01", "tar@far=0.001"]
    assert "tar@far=0.001" in qmul.metrics
    grid = result_grids([dataclasses.replace(qmul, caveats=[])])[0]
    assert [grid.rows[row][4] for row in (0, 1)] == ["-", "-"]
    assert grid.rows[2][4] == "11.02"
    assert warnings(qmul)[1] == ("Not shown: TAR at FAR 1 %, TAR at FAR 0.1 %; smallest resolvable FAR: 3.1 % (1/32).")
    assert unresolved_metrics(qmul_id.settings) == ["tpir20@fpir=0.01"]
    assert warnings(qmul_id)[1] == "Not shown: TPIR20 at FPIR 1 %; smallest resolvable FPIR: 6.2 % (1/16)."
