"""Finds the five points of one face in an image."""

from __future__ import annotations

import cmath
import dataclasses
import math
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from pipeline.landmarks.detector import Face, decode, distinct
from pipeline.landmarks.networks import DETECTOR_PX, LANDMARKER_PX, Networks
from pipeline.landmarks.views import FACE_FACTOR, Image, View, searches

_Found = TypeVar("_Found")
Choice = Literal["largest", "central", "highest-score"]
# of the 478: centres of the irises, tip of the nose, corners of the mouth; left and right as the viewer sees them
FIVE_POINTS = (468, 473, 1, 61, 291)
_FRAME = (33, 263, 10, 152)  # outer corners of the eyes, left and right; upper and lower end of the middle line
# A face that takes less of its view than MIN_SHARE, or that a tile may have cut, is detected again in a view of its own.
MIN_SHARE = 0.25
CLOSE_FACTOR = 2.0  # side of that view over the side of the face's box


@dataclasses.dataclass(frozen=True, kw_only=True)
class FacePoints:
    """The chosen face of an image; coordinates are continuous px, see ``views``.

    Attributes:
        points: (5, 2) float64: left eye, right eye, nose, left and right mouth corner, as the viewer sees them.
        score: of the detector, 0 to 1.
        faces: number of faces found.
        box: left, top, width, height.
        roll, yaw, pitch: degrees, see ``angles``.
    """

    points: np.ndarray
    score: float
    faces: int
    box: tuple[float, float, float, float]
    roll: float
    yaw: float
    pitch: float


def find_face(pixels: np.ndarray, networks: Networks, choose: Choice = "largest") -> FacePoints | None:
    """Returns the points of one face, or None if no face is found.

    The whole image is searched first. Only if it shows no face, ever smaller tiles of it are, until one does.

    Args:
        pixels: (H, W, 3) BGR or (H, W) uint8.
        choose: which of several faces.
    """
    return find_faces([pixels], networks, choose)[0]


def find_faces(images: Sequence[np.ndarray], networks: Networks, choose: Choice = "largest") -> list[FacePoints | None]:
    """As ``find_face``, one face for each image.

    All images advance together from network to network: a tenth faster than one after another, as the code and data of
    each stage stay in the CPU's caches.
    """
    found: list[FacePoints | None] = [None] * len(images)
    waiting = {number: (steps := _steps(Image(pixels), choose), next(steps)) for number, pixels in enumerate(images)}
    while waiting:
        answers = {number: getattr(networks, view.network)(view.pixels) for number, (_, view) in waiting.items()}
        for number, answer in answers.items():
            steps, _ = waiting[number]
            try:
                waiting[number] = steps, steps.send(answer)
            except StopIteration as end:
                found[number] = end.value
                del waiting[number]
    return found


class _Input(NamedTuple):
    """What a network shall look at."""

    network: Literal["detect", "landmarks"]
    pixels: np.ndarray


_Steps = Generator[_Input, Any, _Found]  # yields the input of a network and receives its output


def _steps(image: Image, choose: Choice) -> _Steps[FacePoints | None]:
    for search in searches(image.width, image.height, DETECTOR_PX):
        faces = yield from _detect(image, search)
        enough = math.inf if len(search) > 1 else MIN_SHARE * search[0].side
        for refused, face in enumerate(sorted(faces, key=_preference(choose, image))):
            closer = (yield from _closer(image, face)) if face.side < enough else face
            if found := (yield from _landmarks(image, closer, faces=len(faces) - refused)):
                return found
    return None


def angles(points: np.ndarray, turn: float = 0.0) -> tuple[float, float, float]:
    """Estimates how a head is turned, from (478, 3) points: x to the right, y down, depth away from the camera.

    Yaw and pitch are those of the plane through the outer eye corners that is parallel to the line from forehead to
    chin; the depth that the network states is an estimate itself.

    Args:
        turn: of the points in the image, clockwise, radians.

    Returns:
        Degrees, 0 for a face that is upright and looks into the camera: roll, positive if the head is turned clockwise
        in the image; yaw, positive if it looks to the right of the image; pitch, positive if it looks up.
    """
    left, right, top, bottom = points[list(_FRAME)].tolist()
    across = complex(right[0] - left[0], right[1] - left[1]) * cmath.rect(1, turn)
    down = complex(bottom[0] - top[0], bottom[1] - top[1]) * cmath.rect(1, turn)
    across_z, down_z = right[2] - left[2], bottom[2] - top[2]
    # the direction of the face, minus the vector product of across and down
    x = across_z * down.imag - across.imag * down_z
    y = across.real * down_z - across_z * down.real
    z = across.imag * down.real - across.real * down.imag
    yaw, pitch = math.atan2(x, -z), math.atan2(-y, math.hypot(x, z))
    return math.degrees(cmath.phase(across)), math.degrees(yaw), math.degrees(pitch)


def _detect(image: Image, search: list[View]) -> _Steps[list[Face]]:
    """The faces in some views, in image px."""
    found = []
    for view in search:
        found += yield from _detect_in(image, view)
    # the detector may see a face in the border alone
    inside = [face for face in found if 0 <= face.centre.real <= image.width and 0 <= face.centre.imag <= image.height]
    return distinct(inside) if len(search) > 1 else inside


def _detect_in(image: Image, view: View) -> _Steps[list[Face]]:
    scale = abs(view.factor)
    output = yield _Input("detect", image.sample(view))
    return [
        Face(
            face.score,
            view.to_image(face.centre),
            face.width / scale,
            face.height / scale,
            view.to_image(face.left_eye),
            view.to_image(face.right_eye),
        )
        for face in decode(*output)
    ]


def _closer(image: Image, face: Face) -> _Steps[Face]:
    """Detects a face again in a view of its own."""
    again = yield from _detect_in(image, View.around(face.centre, CLOSE_FACTOR * face.side, DETECTOR_PX))
    return min(again, key=lambda one: abs(one.centre - face.centre), default=face)


def _preference(choose: Choice, image: Image) -> Callable[[Face], float]:
    """Sort key of faces: the one to choose comes first."""
    middle = complex(image.width / 2, image.height / 2)
    keys: dict[Choice, Callable[[Face], float]] = {
        "largest": lambda face: -face.width * face.height,
        "central": lambda face: abs(face.centre - middle),
        "highest-score": lambda face: -face.score,
    }
    return keys[choose]


def _landmarks(image: Image, face: Face, *, faces: int) -> _Steps[FacePoints | None]:
    """The points of a detected face; None if the landmark network sees no face there."""
    turn = cmath.phase(face.right_eye - face.left_eye)  # 0 if the eyes coincide
    view = View.around(face.centre, FACE_FACTOR * face.side, LANDMARKER_PX, turn)
    points, logit = yield _Input("landmarks", image.sample(view))
    if not (logit > 0 and np.isfinite(points).all()):
        return None
    five = points[list(FIVE_POINTS)].astype(np.float64)
    found = view.to_image(five[:, 0] + 1j * five[:, 1])
    roll, yaw, pitch = angles(points, turn)
    return FacePoints(
        points=found.view(np.float64).reshape(5, 2),
        score=face.score,
        faces=faces,
        box=face.box,
        roll=roll,
        yaw=yaw,
        pitch=pitch,
    )
