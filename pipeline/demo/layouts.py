"""The layouts of the public data sets: which photos each contains, under which names, and its list files.

All data sets share the same test people. No test person is in a training set.
"""

from __future__ import annotations

import dataclasses
import io
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import scipy.io

from pipeline.demo.pairs import pairs_text
from pipeline.demo.render import FIRST_TEST_PERSON, Camera, ImageSpec
from pipeline.tables.landmark_table import HEADER
from shards.arguments import check_whole

Landmarks = dict[str, np.ndarray]  # path -> (5, 2), px

VGGFACE2_TEST_EVERY = 8  # every eighth training identity is in VGGFace2's test folder
MIN_QMUL_PAIRS = 20  # genuine or impostor pairs: the protocol has ten folds
SCFACE_SUBJECTS, SCFACE_CAMERAS = 130, 5
SCFACE_EYE_DISTANCES_PX = {1: 10.0, 2: 17.0, 3: 30.0}  # by distance number
LFW_CAMERA = Camera(crop_size=(250, 250))
XQLFW_CAMERA = Camera(crop_size=(250, 250), degrade_half=True)
MUGSHOT_CAMERA = Camera(crop_size=(240, 320), jpeg_quality=95)
QMUL_CAMERA = Camera(face_only=True, eye_distance=(5.0, 12.0))
TINYFACE_CAMERA = Camera(face_only=True, eye_distance=(7.0, 16.0))
SYLLABLES = ("ba", "de", "fi", "go", "hu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "zu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """How many faces to generate. The same options give the same bytes."""

    identities: int  # number of training people, at least two
    images: int  # photos of each person, at least two
    seed: int

    def __post_init__(self) -> None:
        for name, least in (("identities", 2), ("images", 2), ("seed", 0)):
            object.__setattr__(self, name, check_whole(name, getattr(self, name), least))

    @property
    def test_people(self) -> int:
        """Number of people in the benchmarks; each training set shares as many others with VGGFace2."""
        return max(self.identities // 2, 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetPlan:
    """Content of one data set."""

    images: list[ImageSpec]  # its images
    # makes its other files, path -> content, from the landmarks of its images
    lists: Callable[[Landmarks], dict[str, bytes]]
    revision: int = 1  # version of the layout; data sets of an earlier revision are not reused


def _vggface2(options: DemoOptions) -> DatasetPlan:
    images = []
    for person in range(options.identities):
        split = "test" if person % VGGFACE2_TEST_EVERY == VGGFACE2_TEST_EVERY - 1 else "train"
        for photo in range(options.images):
            path = f"{split}/n{person + 1:06d}/{photo + 1:04d}_01.jpg"
            images.append(ImageSpec(path=path, person=person, photo=photo, camera=Camera()))

    def lists(landmarks: Landmarks) -> dict[str, bytes]:
        lists = {}
        for split in ("train", "test"):
            paths = [image.path for image in images if image.path.startswith(f"{split}/")]
            rows = [
                f'"{path.removeprefix(f"{split}/").removesuffix(".jpg")}",{_coordinates(landmarks[path])}'
                for path in paths
            ]
            lists[f"bb_landmark/loose_landmark_{split}.csv"] = "\n".join([",".join(HEADER), *rows, ""]).encode()
        return lists

    return DatasetPlan(images=images, lists=lists)


def _lfw(options: DemoOptions) -> DatasetPlan:
    def lists(landmarks: Landmarks) -> dict[str, bytes]:
        rows = [f"{image.path.removeprefix('lfw/')},{_coordinates(landmarks[image.path])}\n" for image in images]
        return {"LFW.csv": "".join(rows).encode(), "pairs.txt": _pairs_file(options, 2)}

    images = _named_images(options, "lfw", LFW_CAMERA)
    return DatasetPlan(images=images, lists=lists)


def _xqlfw(options: DemoOptions) -> DatasetPlan:
    images = _named_images(options, "lfw_original_imgs_min_qual0.85variant11", XQLFW_CAMERA)
    return DatasetPlan(images=images, lists=lambda landmarks: {"xqlfw_pairs.txt": _pairs_file(options, 3)})


def _named_images(options: DemoOptions, folder: str, camera: Camera) -> list[ImageSpec]:
    """All photos of the test people, under LFW's file names."""
    return [
        _test_image(f"{folder}/{name}/{name}_{photo + 1:04d}.jpg", person, photo, camera)
        for person, name in enumerate(_names(options))
        for photo in range(options.images)
    ]


def _pairs_file(options: DemoOptions, stream: int) -> bytes:
    """A pair list; ``stream`` is the random stream it is drawn from."""
    rng = np.random.default_rng([options.seed, stream])
    return pairs_text(_names(options), options.images, rng).encode()


def _names(options: DemoOptions) -> list[str]:
    """Invented, distinct names of the test people."""
    return [f"{_word(person)}_{_word(31 * person + 7)}" for person in range(options.test_people)]


def _word(number: int) -> str:
    """``number`` written in syllables."""
    letters = ""
    while number or len(letters) < 4:
        number, syllable = divmod(number, len(SYLLABLES))
        letters += SYLLABLES[syllable]
    return letters.capitalize()


def _scface(options: DemoOptions) -> DatasetPlan:
    people = min(options.test_people, SCFACE_SUBJECTS)
    subjects = np.linspace(1, SCFACE_SUBJECTS, people).round().astype(int)  # protocols split the subjects at 50
    parts: dict[str, list[ImageSpec]] = defaultdict(list)
    for person, subject in enumerate(subjects):
        path = f"SCface_database/mugshot_frontal_original_all/{subject:03d}_frontal.jpg"
        parts["mugshot"].append(_test_image(path, person, 0, MUGSHOT_CAMERA))
        for camera in range(1, SCFACE_CAMERAS + 1):
            for number, eyes in SCFACE_EYE_DISTANCES_PX.items():
                path = f"SCface_database/surveillance_cameras_all/{subject:03d}_cam{camera}_{number}.jpg"
                photo = 1 + (3 * camera + number) % (options.images - 1)
                view = dataclasses.replace(MUGSHOT_CAMERA, eye_distance=(0.9 * eyes, 1.1 * eyes), jpeg_quality=85)
                parts[f"distance{number}"].append(_test_image(path, person, photo, view))

    def lists(landmarks: Landmarks) -> dict[str, bytes]:
        return {
            f"scface_{name}.csv": "\n".join(
                f"{image.path.removeprefix('SCface_database/')},{_coordinates(landmarks[image.path])}" for image in part
            ).encode()
            for name, part in parts.items()
        }

    return DatasetPlan(images=[image for part in parts.values() for image in part], lists=lists)


def _qmul(options: DemoOptions) -> DatasetPlan:
    images = _training_images(options, range(options.test_people), "training_set", _qmul_name, QMUL_CAMERA)
    parts: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for person in range(options.test_people):
        for photo in range(options.images):
            name = _qmul_name(person + 1, photo)
            path = f"Face_Verification_Test_Set/verification_images/{name}"
            images.append(_test_image(path, person, photo, QMUL_CAMERA))
            if person % 2 == 0:
                part = ("gallery", "mated_probe")[photo % 2]
                parts[part].append((name, person + 1))
            else:
                part = "unmated_probe"
                name = name if photo % 3 == 0 else f"distractors_{person * options.images + photo + 1}.jpg"
            images.append(_test_image(f"Face_Identification_Test_Set/{part}/{name}", person, photo, QMUL_CAMERA))

    def lists(landmarks: Landmarks) -> dict[str, bytes]:
        return _qmul_pair_lists(options) | {
            f"Face_Identification_Test_Set/{part}_img_ID_pairs.mat": _id_list(part, rows)
            for part, rows in parts.items()
        }

    return DatasetPlan(images=images, lists=lists, revision=2)


def _qmul_pair_lists(options: DemoOptions) -> dict[str, bytes]:
    people = [
        [_qmul_name(person + 1, photo) for photo in range(options.images)] for person in range(options.test_people)
    ]
    rng = np.random.default_rng([options.seed, 1])
    per_person = max(options.images, -(-MIN_QMUL_PAIRS // len(people)))
    genuine = [rng.choice(names, 2, replace=False).tolist() for names in people for _ in range(per_person)]
    impostors = []
    for _ in genuine:
        first, second = rng.choice(len(people), 2, replace=False)
        impostors.append([rng.choice(people[first]), rng.choice(people[second])])
    lists = {}
    for kind, pairs in (("positive", genuine), ("negative", impostors)):
        variable = f"{kind}_pairs_names"
        lists[f"Face_Verification_Test_Set/{variable}.mat"] = _mat_file({variable: np.array(pairs, object)})
    return lists


def _qmul_name(label: int, photo: int) -> str:
    return f"{label}_cam{photo % 3 + 1}_{photo + 1}.jpg"


def _tinyface(options: DemoOptions) -> DatasetPlan:
    people = range(options.identities - options.test_people, options.identities)
    images = _training_images(options, people, "Training_Set", _tinyface_name, TINYFACE_CAMERA)
    distractors = max(options.test_people // 4, 1)
    parts: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for person in range(options.test_people):
        for photo in range(options.images):
            part = ("Gallery_Match", "Probe")[photo % 2]
            part = part if person < options.test_people - distractors else "Gallery_Distractor"
            name = _tinyface_name(person + 1, photo)
            parts[part].append((name, person + 1))
            images.append(_test_image(f"Testing_Set/{part}/{name}", person, photo, TINYFACE_CAMERA))

    def lists(landmarks: Landmarks) -> dict[str, bytes]:
        return {
            f"Testing_Set/{name}_img_ID_pairs.mat": _id_list(variable, parts[part])
            for name, variable, part in (("gallery_match", "gallery", "Gallery_Match"), ("probe", "probe", "Probe"))
        }

    return DatasetPlan(images=images, lists=lists)


def _tinyface_name(label: int, photo: int) -> str:
    return f"{label}_{photo + 1}.jpg"


def _training_images(
    options: DemoOptions, people: range, folder: str, file_name: Callable[[int, int], str], camera: Camera
) -> list[ImageSpec]:
    """All photos of some VGGFace2 people, under labels that no test person has."""
    images = []
    for person in people:
        label = options.test_people + 1 + person
        for photo in range(options.images):
            path = f"{folder}/{label}/{file_name(label, photo)}"
            images.append(ImageSpec(path=path, person=person, photo=photo, camera=camera))
    return images


def _test_image(path: str, person: int, photo: int, camera: Camera) -> ImageSpec:
    """An image of a test person; test people are numbered from 0."""
    return ImageSpec(path=path, person=FIRST_TEST_PERSON + person, photo=photo, camera=camera)


def _coordinates(points: np.ndarray) -> str:
    """CSV fields x, y, x, y, ..."""
    return ",".join(f"{value:.3f}" for value in points.ravel())


def _id_list(variable: str, rows: list[tuple[str, int]]) -> bytes:
    """A MATLAB file with the file names and 1-based identities of a set, each (N, 1)."""
    names, ids = zip(*rows, strict=True)
    columns = {f"{variable}_set": np.array(names, object), f"{variable}_ids": np.array(ids, np.uint16)}
    return _mat_file({name: column[:, None] for name, column in columns.items()})


def _mat_file(variables: dict[str, np.ndarray]) -> bytes:
    """A MATLAB 5 file. scipy's header, which contains the time, is replaced to keep the bytes reproducible."""
    stream = io.BytesIO()
    scipy.io.savemat(stream, variables)
    return b"MATLAB 5.0 MAT-file, generated faces".ljust(116) + stream.getvalue()[116:]


LAYOUTS: dict[str, Callable[[DemoOptions], DatasetPlan]] = {
    "VGGFace2": _vggface2,
    "LFW": _lfw,
    "XQLFW": _xqlfw,
    "SCface": _scface,
    "QMUL-SurvFace": _qmul,
    "TinyFace": _tinyface,
}
