"""How many generated people and images the tests share."""

from __future__ import annotations

IDENTITIES, IMAGES, TEST_PEOPLE = 9, 3, 4
SIZES = {"identities": IDENTITIES, "images": IMAGES, "seed": 1}
