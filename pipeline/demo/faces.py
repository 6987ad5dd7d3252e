"""Random parameters of generated faces: the person (``Identity``) and the photo (``Conditions``)."""

from __future__ import annotations

import numpy as np

FACES = 2  # version of the faces; data sets of an earlier one are not reused
SKIN_COLORS = np.array(
    [(255, 222, 196), (242, 202, 170), (224, 178, 140), (198, 148, 108), (158, 108, 74), (112, 72, 48), (84, 54, 38)],
    float,
)
HAIR_COLORS = np.array([(28, 22, 20), (48, 32, 24), (68, 46, 32), (98, 64, 38), (112, 54, 32)], float)
IRIS_COLORS = np.array([(74, 46, 26), (98, 66, 36), (70, 96, 62), (78, 112, 142), (58, 70, 84)], float)


class Identity:
    """A random person: what all their photos share. Lengths are in face units, colours are RGB 0..255.

    People differ in detail, as real faces do, and little in what a thumbnail shows: heads have much the same outline, and
    hair, glasses and light belong to the photo.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        tone = int(rng.integers(len(SKIN_COLORS)))
        skin = _blend(rng, SKIN_COLORS[max(tone - 1, 0) : tone + 1])
        self.width = rng.uniform(0.69, 0.77)
        self.jaw = rng.uniform(2.1, 2.7)  # exponent of the lower contour: 2 round, 3 square
        self.chin = rng.uniform(0.94, 1.03)
        self.skin = skin
        self.hair = _blend(rng, HAIR_COLORS[:3], spread=0.4)  # of brows and beard
        self.iris = _blend(rng, IRIS_COLORS, spread=0.3)
        self.eye_gap = rng.uniform(0.29, 0.34)
        self.eye_y = rng.uniform(-0.2, -0.15)
        self.eye_width = rng.uniform(0.125, 0.18)
        self.eye_height = rng.uniform(0.045, 0.09)
        self.eye_tilt = rng.uniform(-0.05, 0.05)
        self.lash = rng.uniform(0.012, 0.034)
        self.lid = rng.uniform((0.025, 0.0), (0.06, 1.0))  # height of the crease above the eye, and how deep it is
        self.brow_height = rng.uniform(0.13, 0.21)
        self.brow_thickness = rng.uniform(0.018, 0.065)
        self.brow_arch = rng.uniform(0.0, 0.08)
        self.brow_tilt = rng.uniform(-0.045, 0.045)
        self.brow_width = rng.uniform(1.1, 1.5)  # in widths of the eye
        self.nose_length = rng.uniform(0.38, 0.48)
        self.nose_width = rng.uniform(0.1, 0.19)
        self.nostril = rng.uniform(0.015, 0.03)
        self.mouth_y = rng.uniform(0.48, 0.54)
        self.mouth_width = rng.uniform(0.21, 0.31)
        self.lips = rng.uniform((0.03, 0.04), (0.08, 0.11))  # height of the upper and of the lower one
        self.bow = rng.uniform(0.0, 0.5)  # dip of the upper lip
        self.lip_color = 0.55 * skin + 0.45 * rng.uniform((130, 45, 55), (205, 105, 110))
        self.beard = float(rng.random() < 0.4)  # whether one grows
        self.moles = rng.uniform((-0.5, -0.35, 0.014), (0.5, 0.75, 0.032), (int(rng.integers(0, 6)), 3))  # x, y, radius
        freckles = rng.normal((0.0, 0.12, 0.014), (0.3, 0.2, 0.003), (int(rng.integers(5, 45)), 3))
        self.freckles = np.clip(freckles, (-0.55, -0.4, 0.009), (0.55, 0.6, 0.02))  # x, y, radius
        self.furrows = rng.uniform(0, 1, 5)  # depth of the lines at cheeks, between brows, at forehead, eyes and chin


class Conditions:
    """Random conditions of one photo: hair, what is worn, pose (radians), light, expression, lens, background."""

    def __init__(self, rng: np.random.Generator) -> None:
        light = np.array([rng.normal(0, 0.8), rng.normal(-0.4, 0.4), 1.0])
        self.yaw = float(np.clip(rng.normal(0, 0.1), -0.4, 0.4))
        self.pitch = float(np.clip(rng.normal(0, 0.06), -0.2, 0.2))
        self.roll = rng.normal(0, 0.07)
        self.light = light / np.linalg.norm(light)  # (3,) unit vector towards the light
        self.ambient = rng.uniform(0.3, 0.7)
        self.exposure = rng.uniform(0.7, 1.25)
        self.tint = 1 + rng.normal(0, 0.06, 3)  # RGB factors
        self.smile = rng.uniform(-0.3, 0.7)  # -1..1
        self.mouth_open = max(rng.uniform(-0.8, 0.5), 0.0)  # 0..1
        self.eye_open = rng.uniform(0.7, 1.05)  # 0..1
        self.brow_raise = rng.normal(0, 0.02)
        self.gaze = rng.normal(0, 0.16, 2)  # (2,)
        # 0 bald, 1 short, 2 side parting, 3 fringe, 4 long, 5 cap
        self.hair_style = int(rng.choice([1, 1, 2, 2, 3, 4, 5]))
        self.hairline = rng.uniform(-0.68, -0.56)
        self.hair = rng.uniform(30, 120, 3) if self.hair_style == 5 else _blend(rng, HAIR_COLORS, spread=0.4)
        self.glasses = int(rng.choice([1, 2]) if rng.random() < 0.08 else 0)  # 0 none, 1 round, 2 angular
        self.beard, self.moustache = rng.uniform(0.3, 0.9, 2) * (rng.random(2) < 0.15)  # 0 none .. 1 full
        self.blur = max(rng.normal(0.1, 0.2), 0.0)  # px
        self.noise = rng.uniform(0.5, 5.0)  # standard deviation, levels
        self.clothes = rng.uniform(25, 225, 3)
        color = rng.uniform(40, 215) + rng.normal(0, 10, 3)
        self.background = (color + rng.normal(0, 12, (6, 6, 1)) + rng.normal(0, 3, (6, 6, 3))).clip(0, 255)
        self.offset = rng.normal(0, 0.02, 2)  # (2,) of the face from the centre, fraction of the width


def _blend(rng: np.random.Generator, palette: np.ndarray, spread: float = 0.5) -> np.ndarray:
    """A random colour of ``palette``, blended towards another one."""
    first, second = palette[rng.integers(len(palette))], palette[rng.integers(len(palette))]
    return first + spread * rng.random() ** 2 * (second - first)
