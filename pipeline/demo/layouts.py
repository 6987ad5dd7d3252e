"""The layouts of the public data sets: whose photographs each shows, under which names, and its lists.

A test person is the same one in every data set; people of a training set are in no test set.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import scipy.io

from pipeline.demo.pair_lists import draw_pairs, pairs_text
from pipeline.demo.photographs import FIRST_TEST_PERSON, Camera, Print
from pipeline.sources.landmarks import HEADER

Landmarks = dict[str, np.ndarray]  # path -> (5, 2), px

_TEST_SPLIT = 8  # every eighth training identity lies in VGGFace2's test folder
_LEAST_PAIRS = 20  # of a kind: the protocol has ten folds
_SUBJECTS, _CAMERAS = 130, 5  # of SCface
_DISTANCES = {1: 10.0, 2: 17.0, 3: 30.0}  # px between the eyes
_SURVEILLANCE = Camera(tight=True, eyes=(5.0, 12.0))
_TINY = Camera(tight=True, eyes=(7.0, 16.0))
_LFW = Camera(size=(250, 250))
_XQLFW = Camera(size=(250, 250), spoilt=True)
_MUGSHOT = Camera(size=(240, 320), quality=95)
_SYLLABLES = ("ba", "de", "fi", "go", "hu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "zu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """How many faces to paint, at least two images each of two people. The same options give the same bytes."""

    identities: int
    images: int
    seed: int

    def __post_init__(self) -> None:
        if min(self.identities, self.images) < 2:
            raise ValueError(f"identities {self.identities}, images {self.images}: two are the least")

    @property
    def test_people(self) -> int:
        """How many people the benchmarks show."""
        return max(self.identities // 2, 2)

    @property
    def shared_people(self) -> int:
        """How many people of VGGFace2 another training set shows."""
        return max(self.identities // 2, 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What one data set holds.

    Attributes:
        prints: its images.
        lists: from their landmarks to its other files, path under its folder -> content.
        revision: of the layout; what an earlier one wrote is not taken for this.
    """

    prints: list[Print]
    lists: Callable[[Landmarks], dict[str, bytes]]
    revision: int = 1


def _vggface2(options: DemoOptions) -> Plan:
    prints = []
    for person in range(options.identities):
        split = "test" if person % _TEST_SPLIT == _TEST_SPLIT - 1 else "train"
        for image in range(options.images):
            path = f"{split}/n{person + 1:06d}/{image + 1:04d}_01.jpg"
            prints.append(Print(path=path, person=person, image=image, camera=Camera()))
    return Plan(prints=prints, lists=partial(_vggface2_lists, [job.path for job in prints]))


def _vggface2_lists(paths: list[str], landmarks: Landmarks) -> dict[str, bytes]:
    lists = {}
    for split in ("train", "test"):
        part = [path.removeprefix(f"{split}/") for path in paths if path.startswith(f"{split}/")]
        rows = [f'"{path.removesuffix(".jpg")}",{_numbers(landmarks[f"{split}/{path}"])}' for path in part]
        text = "\n".join([",".join(HEADER), *rows]) + "\n"
        lists[f"bb_landmark/loose_landmark_{split}.csv"] = text.encode()
    return lists


def _lfw(options: DemoOptions) -> Plan:
    def lists(landmarks: Landmarks) -> dict[str, bytes]:
        rows = [f"{job.path.removeprefix('lfw/')},{_numbers(landmarks[job.path])}\n" for job in prints]
        return {"LFW.csv": "".join(rows).encode(), "pairs.txt": _pairs(options, 2)}

    prints = _named(options, "lfw", _LFW)
    return Plan(prints=prints, lists=lists)


def _xqlfw(options: DemoOptions) -> Plan:
    prints = _named(options, "lfw_original_imgs_min_qual0.85variant11", _XQLFW)
    return Plan(prints=prints, lists=lambda landmarks: {"xqlfw_pairs.txt": _pairs(options, 3)})


def _named(options: DemoOptions, folder: str, camera: Camera) -> list[Print]:
    """All photographs of the test people, under their names."""
    return [
        _test_print(f"{folder}/{name}/{name}_{image + 1:04d}.jpg", index, image, camera)
        for index, name in enumerate(_names(options))
        for image in range(options.images)
    ]


def _pairs(options: DemoOptions, stream: int) -> bytes:
    rng = np.random.default_rng([options.seed, stream])
    return pairs_text(_names(options), draw_pairs(options.test_people, options.images, rng)).encode()


def _names(options: DemoOptions) -> list[str]:
    """First names and surnames such as nobody has; no two alike."""
    return [f"{_word(index)}_{_word(31 * index + 7)}" for index in range(options.test_people)]


def _word(number: int) -> str:
    letters = ""
    while number or len(letters) < 4:
        number, syllable = divmod(number, len(_SYLLABLES))
        letters += _SYLLABLES[syllable]
    return letters.capitalize()


def _scface(options: DemoOptions) -> Plan:
    people = min(options.test_people, _SUBJECTS)
    subjects = np.linspace(1, _SUBJECTS, people).round().astype(int)  # on both sides of 50, where protocols divide them
    prints: dict[str, list[Print]] = {name: [] for name in ("mugshot", *map("distance{}".format, _DISTANCES))}
    for index, subject in enumerate(subjects):
        path = f"SCface_database/mugshot_frontal_original_all/{subject:03d}_frontal.jpg"
        prints["mugshot"].append(_test_print(path, index, 0, _MUGSHOT))
        for camera in range(1, _CAMERAS + 1):
            for distance, eyes in _DISTANCES.items():
                path = f"SCface_database/surveillance_cameras_all/{subject:03d}_cam{camera}_{distance}.jpg"
                image = 1 + (3 * camera + distance) % (options.images - 1)
                look = Camera(size=_MUGSHOT.size, eyes=(0.9 * eyes, 1.1 * eyes), quality=85)
                prints[f"distance{distance}"].append(_test_print(path, index, image, look))

    def lists(landmarks: Landmarks) -> dict[str, bytes]:
        return {
            f"scface_{name}.csv": "\n".join(
                f"{job.path.removeprefix('SCface_database/')},{_numbers(landmarks[job.path])}" for job in part
            ).encode()
            for name, part in prints.items()
        }

    return Plan(prints=[job for part in prints.values() for job in part], lists=lists)


def _qmul(options: DemoOptions) -> Plan:
    prints = _training_prints(options, range(options.shared_people), "training_set", _camera_name, _SURVEILLANCE)
    parts: dict[str, list[tuple[str, int]]] = {"gallery": [], "mated_probe": []}
    for index in range(options.test_people):
        for image in range(options.images):
            name = _camera_name(index + 1, image)
            path = f"Face_Verification_Test_Set/verification_images/{name}"
            prints.append(_test_print(path, index, image, _SURVEILLANCE))
            if index % 2 == 0:
                part = ("gallery", "mated_probe")[image % 2]
                parts[part].append((name, index + 1))
            else:
                part = "unmated_probe"
                name = name if image % 3 == 0 else f"distractors_{index * options.images + image + 1}.jpg"
            prints.append(_test_print(f"Face_Identification_Test_Set/{part}/{name}", index, image, _SURVEILLANCE))

    def lists(landmarks: Landmarks) -> dict[str, bytes]:
        return _verification_lists(options) | {
            f"Face_Identification_Test_Set/{part}_img_ID_pairs.mat": _id_list(part, rows)
            for part, rows in parts.items()
        }

    return Plan(prints=prints, lists=lists, revision=2)


def _verification_lists(options: DemoOptions) -> dict[str, bytes]:
    people = [
        [_camera_name(index + 1, image) for image in range(options.images)] for index in range(options.test_people)
    ]
    rng = np.random.default_rng([options.seed, 1])
    each = max(options.images, -(-_LEAST_PAIRS // len(people)))
    genuine = [rng.choice(names, 2, replace=False).tolist() for names in people for _ in range(each)]
    impostors = []
    for _ in genuine:
        first, second = rng.choice(len(people), 2, replace=False)
        impostors.append([rng.choice(people[first]), rng.choice(people[second])])
    lists = {}
    for kind, pairs in (("positive", genuine), ("negative", impostors)):
        variable = f"{kind}_pairs_names"
        lists[f"Face_Verification_Test_Set/{variable}.mat"] = _mat({variable: _cells(pairs, 2)})
    return lists


def _camera_name(label: int, image: int) -> str:
    return f"{label}_cam{image % 3 + 1}_{image + 1}.jpg"


def _tinyface(options: DemoOptions) -> Plan:
    people = range(options.identities - options.shared_people, options.identities)
    prints = _training_prints(options, people, "Training_Set", _plain_name, _TINY)
    strangers = max(options.test_people // 4, 1)  # nobody looks for them
    parts: dict[str, list[tuple[str, int]]] = {"Gallery_Match": [], "Probe": [], "Gallery_Distractor": []}
    for index in range(options.test_people):
        for image in range(options.images):
            part = ("Gallery_Match", "Probe")[image % 2]
            part = part if index < options.test_people - strangers else "Gallery_Distractor"
            name = _plain_name(index + 1, image)
            parts[part].append((name, index + 1))
            prints.append(_test_print(f"Testing_Set/{part}/{name}", index, image, _TINY))

    def lists(landmarks: Landmarks) -> dict[str, bytes]:
        return {
            f"Testing_Set/{name}_img_ID_pairs.mat": _id_list(variable, parts[part])
            for name, variable, part in (("gallery_match", "gallery", "Gallery_Match"), ("probe", "probe", "Probe"))
        }

    return Plan(prints=prints, lists=lists)


def _plain_name(label: int, image: int) -> str:
    return f"{label}_{image + 1}.jpg"


def _training_prints(
    options: DemoOptions, people: range, folder: str, file_name: Callable[[int, int], str], camera: Camera
) -> list[Print]:
    """All photographs of some people of VGGFace2, under labels that no test person has."""
    prints = []
    for person in people:
        label = options.test_people + 1 + person
        for image in range(options.images):
            path = f"{folder}/{label}/{file_name(label, image)}"
            prints.append(Print(path=path, person=person, image=image, camera=camera))
    return prints


def _test_print(path: str, index: int, image: int, camera: Camera) -> Print:
    return Print(path=path, person=FIRST_TEST_PERSON + index, image=image, camera=camera)


def _numbers(points: np.ndarray) -> str:
    return ",".join(f"{value:.3f}" for value in points.ravel())


def _id_list(variable: str, rows: list[tuple[str, int]]) -> bytes:
    """Names and 1-based identities of a set's files, each (N, 1)."""
    names, ids = zip(*rows, strict=True)
    return _mat({f"{variable}_set": _cells(names, 1), f"{variable}_ids": np.array(ids, np.uint16)[:, None]})


def _cells(names: Sequence[str] | Sequence[Sequence[str]], columns: int) -> np.ndarray:
    """(N, columns) cells of text."""
    table = np.array(names).reshape(-1, columns)
    cells = np.empty(table.shape, object)
    cells[:] = table
    return cells


def _mat(variables: dict[str, np.ndarray]) -> bytes:
    """A MATLAB 5 file without the time that scipy states in its header: the same seed shall give the same bytes."""
    stream = io.BytesIO()
    scipy.io.savemat(stream, variables)
    return b"MATLAB 5.0 MAT-file, generated faces".ljust(116) + stream.getvalue()[116:]


LAYOUTS: dict[str, Callable[[DemoOptions], Plan]] = {
    "VGGFace2": _vggface2,
    "LFW": _lfw,
    "XQLFW": _xqlfw,
    "SCface": _scface,
    "QMUL-SurvFace": _qmul,
    "TinyFace": _tinyface,
}
