"""Landmark tables in text form."""

from __future__ import annotations

from pipeline.tables.landmark_reader import read_landmarks
from pipeline.tables.landmark_table import HEADER

HEAD = ",".join(HEADER)
NUMBERS = "1.5,2,3,4,5,6,7,8,9,10.25"
POINTS = [1.5, 2, 3, 4, 5, 6, 7, 8, 9, 10.25]


def read(tmp_path, text, name="landmarks.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_landmarks([path])


FIVE = [
    f"a/{name}.jpg," + ",".join(str(10 * number + value) for value in range(10)) for number, name in enumerate("xyz")
]


FOUR = [",".join(line.split(",")[:9]) for line in FIVE]


def write(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path
