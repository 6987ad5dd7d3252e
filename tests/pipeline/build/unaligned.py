"""Training sets without landmarks: their builds and images."""

from __future__ import annotations

from pipeline.build import options_for

SETS = {"qmul": ("QMUL-SurvFace", "training_set"), "tinyface": ("TinyFace", "Training_Set")}
PEOPLE, IMAGES = 4, 5
FIRST = 5  # label of the first person: there are four test people


def options(root, out, source="qmul", **changes):
    defaults = {"images_per_shard": 6, "executor": "serial", "landmarks": (), "template": None}
    return options_for(source, root=root, out=out, **{**defaults, **changes})


def picture(training, number):
    return training / str(FIRST) / f"{FIRST}_cam{(number - 1) % 3 + 1}_{number}.jpg"
