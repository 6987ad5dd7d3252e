"""Geometry of the search: views, tiles, turned faces, which of several faces. The networks are a stand-in."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipeline.landmarks import views
from pipeline.landmarks.detector import ANCHORS, decode
from pipeline.landmarks.faces import angles, find_face, find_faces
from tests.pipeline.landmarks.stand_in import RED, StandIn, scene


def distance(face, points):
    """Mean distance over the distance of the eyes."""
    return np.linalg.norm(face.points - points, axis=1).mean() / np.linalg.norm(points[1] - points[0])


@pytest.mark.parametrize("turn", [0, 30, -50])
@pytest.mark.parametrize(
    ("width", "height", "face"),
    [(160, 160, (40, 40, 80)), (333, 250, (150, 70, 130)), (250, 701, (40, 300, 120)), (40, 40, (9, 9, 22))],
)
def test_points_come_back_to_the_image(width, height, face, turn):
    image, points = scene(width, height, [face], turn)
    found = find_face(image, StandIn())
    assert distance(found, points[0]) < 0.02
    assert found.faces == 1
    assert found.roll == pytest.approx(turn, abs=2)
    left, top, side_x, side_y = found.box
    assert left + side_x / 2 == pytest.approx(face[0] + face[2] / 2, abs=face[2] / 10)
    assert top + side_y / 2 == pytest.approx(face[1] + face[2] / 2, abs=face[2] / 10)


@pytest.mark.parametrize(
    ("side", "detections"),
    [(700, 1), (400, 2), (250, 3 + 1), (120, 3 + 6 + 1), (60, 3 + 6 + 35 + 1), (40, 3 + 6 + 35 + 165 + 1)],
)
def test_smaller_and_smaller_tiles_are_searched_until_one_shows_a_face(side, detections):
    image, points = scene(1600, 1200, [(811, 333, side)], 10)
    networks = StandIn()
    found = find_face(image, networks)
    assert distance(found, points[0]) < 0.03
    assert found.faces == 1  # overlapping tiles show it several times
    assert networks.detections == detections


def test_a_face_too_small_for_the_smallest_tile_is_not_found():
    image, _ = scene(1600, 1200, [(811, 333, 20)])
    networks = StandIn()
    assert find_face(image, networks) is None
    assert networks.detections == 3 + 3 * 2 + 7 * 5 + 15 * 11
    assert networks.meshes == 0


def test_small_images_are_not_cut_into_tiles():
    networks = StandIn()
    assert find_face(np.zeros((250, 250, 3), np.uint8), networks) is None
    assert networks.detections == len(views.BORDERS)


@pytest.mark.parametrize(("choose", "expected"), [("largest", 0), ("central", 1), ("highest-score", 0)])
def test_which_of_several_faces(choose, expected):
    image, points = scene(600, 600, [(20, 20, 200), (240, 270, 150), (420, 30, 160)])
    found = find_face(image, StandIn(), choose)
    assert distance(found, points[expected]) < 0.03
    assert found.faces == 3


def test_what_the_landmark_network_refuses_is_no_face():
    image, points = scene(500, 500, [(20, 20, 250, RED), (300, 300, 150)])
    networks = StandIn()
    found = find_face(image, networks)
    assert distance(found, points[1]) < 0.03
    assert (found.faces, networks.meshes) == (1, 2)
    image, _ = scene(160, 160, [(30, 30, 100, RED)])
    assert find_face(image, StandIn()) is None


def test_several_images_are_as_each_alone():
    images = [
        scene(160, 160, [(40, 40, 80)], 5)[0],
        np.zeros((90, 80, 3), np.uint8),
        scene(900, 700, [(70, 60, 50)])[0],
    ]
    images += [scene(500, 500, [(20, 20, 250, RED), (300, 300, 150)])[0], scene(300, 200, [(90, 50, 100)])[0]]
    together, alone = find_faces(images, StandIn()), [find_face(image, StandIn()) for image in images]
    assert [face is None for face in together] == [False, True, False, False, False]
    for one, other in zip(together, alone, strict=True):
        assert (one is None) == (other is None)
        if one:
            assert one.points.tolist() == other.points.tolist()
            assert dataclasses.replace(one, points=None) == dataclasses.replace(other, points=None)
    assert find_faces([], StandIn()) == []


def test_eyes_that_coincide_are_level():
    class OneEye(StandIn):
        def detect(self, image):
            boxes, logits = super().detect(image)
            boxes[:, 4:8] = np.tile(boxes[:, 4:6], 2)
            return boxes, logits

    image, points = scene(160, 160, [(40, 40, 80)])
    assert distance(find_face(image, OneEye()), points[0]) < 0.02


def test_a_face_that_fills_the_image_is_seen_in_the_border():
    image, points = scene(100, 100, [(4, 4, 92)])
    assert distance(find_face(image, StandIn()), points[0]) < 0.02


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 900, 3), (2, 3), (700, 1, 3)])
def test_images_of_odd_shapes_have_no_face(shape):
    assert find_face(np.full(shape, 99, np.uint8), StandIn()) is None


def test_tiles_cover_every_place():
    for width, height in [(300, 257), (4000, 500), (513, 2000)]:
        covered = np.zeros((height, width), bool)
        searches = list(views.searches(width, height, 128))[len(views.BORDERS) :]
        assert searches
        for view in searches[-1]:
            corner, opposite = view.to_image(0j), view.to_image(128 + 128j)
            assert (opposite - corner).real == pytest.approx(view.side)
            (left, right), (top, bottom) = [
                (round(corner.real), round(opposite.real)),
                (round(corner.imag), round(opposite.imag)),
            ]
            covered[max(top, 0) : bottom, max(left, 0) : right] = True
        assert covered.all()


def test_a_view_of_an_image_is_the_image_whatever_its_scale():
    ramp = np.tile(np.linspace(0, 255, 512), (512, 1)).astype(np.uint8)
    image = views.Image(ramp)
    for size in (512, 256, 128, 100, 64, 32):
        view = image.sample(views.View.around(256 + 256j, 512, size))
        expected = (np.arange(size) + 0.5) * 255 / size
        assert np.abs(view[size // 2].astype(float) - expected)[1:-1].max() < 2.5


@pytest.mark.parametrize("turn", [0.0, 0.4])
@pytest.mark.parametrize("side", [40, 77.7, 300, 900])
def test_views_beyond_the_image_repeat_its_outermost_pixels_at_every_scale(side, turn):
    rows, columns = np.mgrid[0:201, 0:301]
    image = views.Image((columns * 0.5 + rows * 0.4).astype(np.uint8))
    for centre in (150 + 100j, 20.3 + 30j, 290 + 199j, -15j):
        view = views.View.around(centre, side, 128, turn)
        places = view.to_image(np.add.outer(1j * np.arange(128), np.arange(128)) + 0.5 + 0.5j)
        expected = places.real.clip(0.5, 300.5) * 0.5 + places.imag.clip(0.5, 200.5) * 0.4 - 0.45
        level = max(side / 128, 1)  # the outermost pixels of a halved image are means
        assert np.abs(image.sample(view) - expected).max() < 1.5 + 0.5 * level


def test_whole_pixels_are_cut_out_as_they_are_warped(monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (160, 120, 3), dtype=np.uint8)
    [view], *_ = views.searches(120, 160, 128)
    cut = views.Image(image).sample(view)
    assert view.to_image(0j) == pytest.approx(-52 - 32j)
    monkeypatch.setattr(views, "_is_whole", lambda _: False)
    warped = views.Image(image).sample(view)
    difference = np.abs(cut.astype(int) - warped)
    assert 0 < difference.max() <= 8  # OpenCV rounds the places of a warp to 1/32 px
    assert difference.mean() < 2


def test_anchors_are_at_the_centres_of_the_cells():
    assert ANCHORS.shape == (896, 2)
    assert ANCHORS[:3].tolist() == [[1 / 32, 1 / 32], [1 / 32, 1 / 32], [3 / 32, 1 / 32]]
    assert ANCHORS[512:519].tolist() == [[1 / 16, 1 / 16]] * 6 + [[3 / 16, 1 / 16]]


def test_overlapping_boxes_are_joined_by_their_scores():
    boxes, logits = np.zeros((896, 16), np.float32), np.full(896, -20, np.float32)
    for row, shift, logit in [(300, 0, np.log(4)), (301, 4, 0.01), (10, 0, 3), (11, 0, -0.01)]:
        boxes[row, 0], boxes[row, 2:4], logits[row] = shift, 30, logit
    boxes[12, 2:4], logits[12] = -5, 80  # a box of negative size is ignored
    first, second = decode(boxes, logits)
    assert first.score == pytest.approx(1 / (1 + np.exp(-3)))
    assert second.score == pytest.approx(0.8)
    shift = second.centre.real - ANCHORS[300, 0] * 128
    assert shift == pytest.approx(4 * 0.5025 / (0.8 + 0.5025), abs=1e-3)
    assert second.box[2:] == pytest.approx((30, 30))
    assert first.overlap(first) == pytest.approx(1)
    assert first.overlap(second) == 0
    assert decode(boxes, np.full(896, -1, np.float32)) == []


def test_angles_of_a_turned_head():
    flat = np.zeros((478, 3))
    flat[[33, 263, 10, 152]] = [(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0)]

    def turned(x, y, z):
        """Turns about the vertical by x, about the horizontal by y, in the image by z; degrees."""
        a, b, c = np.radians([x, y, z])
        yaw = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
        pitch = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
        roll = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
        return angles(flat @ (roll @ yaw @ pitch).T)

    assert turned(0, 0, 0) == pytest.approx((0, 0, 0))
    assert turned(30, 0, 0) == pytest.approx((0, 30, 0))
    assert turned(0, 20, 0) == pytest.approx((0, 0, 20))
    assert turned(0, 0, 25) == pytest.approx((25, 0, 0))
    assert turned(-40, -10, 0) == pytest.approx((0, -40, -10))
