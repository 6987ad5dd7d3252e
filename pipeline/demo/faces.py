"""Random parameters of generated faces: the person (``Identity``) and the photo (``Conditions``)."""

from __future__ import annotations

import numpy as np

SKIN_COLORS = np.array(
    [(255, 222, 196), (242, 202, 170), (224, 178, 140), (198, 148, 108), (158, 108, 74), (112, 72, 48), (84, 54, 38)],
    float,
)
HAIR_COLORS = np.array(
    [(28, 22, 20), (58, 38, 26), (98, 64, 38), (150, 104, 58), (206, 168, 104), (142, 62, 34), (150, 148, 146)], float
)
IRIS_COLORS = np.array([(74, 46, 26), (98, 66, 36), (70, 96, 62), (78, 112, 142), (58, 70, 84)], float)


class Identity:
    """A random person: what all their photos share. Lengths are in face units, colours are RGB 0..255."""

    def __init__(self, rng: np.random.Generator) -> None:
        tone = int(rng.integers(len(SKIN_COLORS)))
        skin = _blend(rng, SKIN_COLORS[max(tone - 1, 0) : tone + 1])
        male = rng.random() < 0.5
        self.width = rng.uniform(0.64, 0.82)
        self.jaw = rng.uniform(1.9, 3.0)  # exponent of the lower contour: 2 round, 3 square
        self.chin = rng.uniform(0.88, 1.08)
        self.skin = skin
        self.hair = _blend(rng, HAIR_COLORS if tone < 4 else HAIR_COLORS[[0, 1, 6]], spread=0.4)
        # 0 bald, 1 short, 2 side parting, 3 fringe, 4 long
        self.hair_style = int(rng.choice([0, 1, 1, 2, 3] if male else [2, 3, 4, 4, 4]))
        self.hairline = rng.uniform(-0.74, -0.52)
        self.iris = _blend(rng, IRIS_COLORS, spread=0.3)
        self.eye_gap = rng.uniform(0.27, 0.36)
        self.eye_y = rng.uniform(-0.24, -0.12)
        self.eye_width = rng.uniform(0.125, 0.175)
        self.eye_height = rng.uniform(0.05, 0.085)
        self.eye_tilt = rng.uniform(-0.03, 0.03)
        self.brow_height = rng.uniform(0.13, 0.21)
        self.brow_thickness = rng.uniform(0.025, 0.065)
        self.brow_arch = rng.uniform(0.0, 0.07)
        self.nose_length = rng.uniform(0.36, 0.5)
        self.nose_width = rng.uniform(0.11, 0.18)
        self.mouth_y = rng.uniform(0.46, 0.56)
        self.mouth_width = rng.uniform(0.21, 0.31)
        self.lip = rng.uniform(0.04, 0.085)
        self.lip_color = 0.55 * skin + 0.45 * rng.uniform((140, 50, 60), (205, 95, 100))
        self.beard = float(male and rng.random() < 0.4) * rng.uniform(0.4, 0.95)  # 0 none .. 1 full
        self.moustache = float(male and rng.random() < 0.35) * rng.uniform(0.5, 1.0)
        self.glasses = int(rng.choice([0, 0, 0, 1, 2]))  # 0 none, 1 round, 2 angular
        self.moles = rng.uniform((-0.5, -0.3), (0.5, 0.7), (int(rng.integers(0, 3)), 2))  # (k, 2)


class Conditions:
    """Random capture conditions of one photo: pose (radians), light, expression, lens, background."""

    def __init__(self, rng: np.random.Generator) -> None:
        light = np.array([rng.normal(0, 0.6), rng.normal(-0.4, 0.35), 1.0])
        self.yaw = float(np.clip(rng.normal(0, 0.25), -0.6, 0.6))
        self.pitch = float(np.clip(rng.normal(0, 0.13), -0.35, 0.35))
        self.roll = rng.normal(0, 0.09)
        self.light = light / np.linalg.norm(light)  # (3,) unit vector towards the light
        self.ambient = rng.uniform(0.45, 0.75)
        self.exposure = rng.uniform(0.78, 1.15)
        self.tint = 1 + rng.normal(0, 0.035, 3)  # RGB factors
        self.smile = rng.uniform(-0.35, 1.0)  # -1..1
        self.mouth_open = max(rng.uniform(-0.8, 0.8), 0.0)  # 0..1
        self.eye_open = rng.uniform(0.6, 1.05)  # 0..1
        self.gaze = rng.normal(0, 0.16, 2)  # (2,)
        self.blur = max(rng.normal(0.3, 0.5), 0.0)  # px
        self.noise = rng.uniform(0.5, 5.0)  # standard deviation, levels
        self.clothes = rng.uniform(25, 225, 3)
        color = rng.uniform(40, 215) + rng.normal(0, 16, 3)
        self.background = (color + rng.normal(0, 24, (6, 6, 1)) + rng.normal(0, 6, (6, 6, 3))).clip(0, 255)
        self.offset = rng.normal(0, 0.02, 2)  # (2,) of the face from the centre, fraction of the width


def _blend(rng: np.random.Generator, palette: np.ndarray, spread: float = 0.5) -> np.ndarray:
    """A random colour of ``palette``, blended towards another one."""
    first, second = palette[rng.integers(len(palette))], palette[rng.integers(len(palette))]
    return first + spread * rng.random() ** 2 * (second - first)
