"""Reads and changes what a build reads and writes."""

from __future__ import annotations

CSV = "bb_landmark/loose_landmark_train.csv"


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def image(root, key):
    return root / "train" / f"{key}.jpg"


def csv_lines(root):
    return (root / CSV).read_text().splitlines()


def write_csv(root, lines):
    (root / CSV).write_text("\n".join(lines) + "\n")
