"""Published results with their sources, and the columns of the report's tables."""

from __future__ import annotations

import dataclasses

_RESOLUTIONS = (8, 12, 16, 20, 128)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A row of published results.

    Attributes:
        system: name in tables and legends.
        source: publication.
        metrics: fractions by metric name.
        note: what limits the comparison, if anything.
    """

    system: str
    source: str
    metrics: dict[str, float]
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of metrics.

    Attributes:
        title: may be empty.
        columns: metric name -> column title.
    """

    title: str
    columns: dict[str, str]


TABLES: dict[str, list[Table]] = {
    "lfw": [
        Table(title="HR to LR, accuracy", columns={f"accuracy@{size}": f"{size} px" for size in _RESOLUTIONS}),
        Table(
            title="LR to LR, accuracy", columns={f"lr-lr/accuracy@{size}": f"{size} px" for size in _RESOLUTIONS[:-1]}
        ),
        Table(title="HR to LR, AUC", columns={f"auc@{size}": f"{size} px" for size in _RESOLUTIONS}),
        Table(title="LR to LR, AUC", columns={f"lr-lr/auc@{size}": f"{size} px" for size in _RESOLUTIONS[:-1]}),
    ],
    "xqlfw": [Table(title="", columns={"accuracy": "accuracy", "auc": "AUC"})],
    "scface": [
        Table(title="rank-1, all subjects", columns={"rank1@d1": "4.2 m", "rank1@d2": "2.6 m", "rank1@d3": "1.0 m"}),
        Table(
            title="rank-1, subjects 51-130",
            columns={"rank1@d1/51-130": "4.2 m", "rank1@d2/51-130": "2.6 m", "rank1@d3/51-130": "1.0 m"},
        ),
    ],
    "qmul": [
        Table(
            title="",
            columns={
                **{f"tar@far={far:g}": f"TAR@{far:.4g}" for far in (0.3, 0.1, 0.01, 0.001)},
                "auc": "AUC",
                "accuracy": "accuracy",
            },
        )
    ],
    "qmul-id": [
        Table(
            title="",
            columns={**{f"tpir20@fpir={rate:g}": f"TPIR20@{rate:g}" for rate in (0.3, 0.2, 0.1, 0.01)}, "auc": "AUC"},
        )
    ],
    "tinyface": [
        Table(
            title="",
            columns={**{f"rank{rank}": f"rank-{rank}" for rank in (1, 5, 10, 20)}, "map": "mAP"},
        )
    ],
}

_PAPER = "Lai & Lam, Deep Siamese network for low-resolution face recognition, ICIP 2021"
_RELEASE = "results page of the paper's 2024 release"
_PILLOW_NOTE = "its result at 8 px depends on the resampling filter of Pillow before 7.0"


def _reference(
    system: str, source: str, lfw: tuple[float, ...], scface: tuple[float, ...], qmul: tuple[float, ...], note: str = ""
) -> dict[str, Published]:
    """A row of the reference for each of its three benchmarks, from percentages."""
    names = {
        "lfw": [f"accuracy@{size}" for size in _RESOLUTIONS],
        "scface": [f"rank1@d{distance}" for distance in (1, 2, 3)],
        "qmul": [*(f"tar@far={far:g}" for far in (0.3, 0.1, 0.01, 0.001)), "auc"],
    }
    rows = {"lfw": lfw, "scface": scface, "qmul": qmul}
    return {
        benchmark: Published(
            system=system,
            source=source,
            metrics={name: round(value / 100, 6) for name, value in zip(names[benchmark], values, strict=True)},
            note=note if benchmark == "lfw" else "650 probes a distance" if benchmark == "scface" else "",
        )
        for benchmark, values in rows.items()
    }


_REFERENCE = [
    _reference(
        "Lai & Lam 2021, paper",
        _PAPER,
        (94.8, 97.6, 98.2, 98.1, 99.1),
        (79.7, 95.7, 98.2),
        (75.09, 52.74, 21.41, 11.02, 80.03),
        note=_PILLOW_NOTE,
    ),
    _reference(
        "released checkpoint, re-run 2024",
        _RELEASE,
        (83.53, 94.20, 97.23, 98.37, 99.08),
        (78.92, 96.0, 98.77),
        (75.15, 52.41, 21.86, 10.49, 80.06),
    ),
    _reference(
        "reproduced 2024",
        _RELEASE,
        (96.27, 98.15, 98.67, 98.62, 98.67),
        (79.85, 96.62, 98.15),
        (77.56, 56.37, 28.71, 11.88, 82.17),
    ),
]

_BEST: dict[str, list[Published]] = {
    "scface": [
        Published(
            system="QGFace",
            source="Song & Wang, QGFace: quality-guided joint training for mixed-quality face recognition, 2023",
            metrics={"rank1@d1": 0.9231, "rank1@d2": 0.9954, "rank1@d3": 1.0},
            note="650 probes a distance",
        ),
        Published(
            system="DDL",
            source="Huang et al., Improving face recognition from hard samples via distribution distillation loss, ECCV 2020",
            metrics={"rank1@d1/51-130": 0.868, "rank1@d2/51-130": 0.983, "rank1@d3/51-130": 0.983},
            note="400 probes a distance, tuned on subjects 1-50",
        ),
    ],
    "qmul-id": [
        Published(
            system="BTNet",
            source="He et al., Learning unified representations for multi-resolution face recognition, BMVC 2023",
            metrics={
                "tpir20@fpir=0.3": 0.312,
                "tpir20@fpir=0.2": 0.269,
                "tpir20@fpir=0.1": 0.206,
                "tpir20@fpir=0.01": 0.025,
                "auc": 0.354,
            },
            note="trained on QMUL-SurvFace's own training set",
        )
    ],
    "tinyface": [
        Published(
            system="ViT-KPRPE, WebFace12M",
            source="CVLface; Kim et al., KeyPoint relative position encoding for face recognition, CVPR 2024",
            metrics={"rank1": 0.7610, "rank5": 0.7892},
            note="a larger network and training set, aligned faces",
        ),
        Published(
            system="AdaFace IR-18, VGGFace2",
            source="Kim, Jain & Liu, AdaFace: quality adaptive margin for face recognition, CVPR 2022, and its model zoo",
            metrics={"rank1": 0.6462, "rank5": 0.6915},
            note="the same training set, aligned faces",
        ),
    ],
    "xqlfw": [
        Published(
            system="FaceTransformer + octuplet loss",
            source="Knoche et al., Octuplet loss: make face recognition robust to image resolution, FG 2023",
            metrics={"accuracy": 0.9512},
            note="a larger training set",
        )
    ],
}

PUBLISHED: dict[str, list[Published]] = {
    benchmark: [*(rows[benchmark] for rows in _REFERENCE if benchmark in rows), *_BEST.get(benchmark, [])]
    for benchmark in TABLES
}
