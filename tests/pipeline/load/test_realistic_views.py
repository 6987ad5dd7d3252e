"""Views with a preset: the same pixels on any number of ranks and after resuming; other views as without."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from pipeline.degradation.settings import PresetError
from pipeline.load.loader import Loader
from tests.pipeline.load.batches import BATCH, STEPS, assert_same, batches_of, global_batches, jpeg_of, write_set

REALISTIC = ((128, 128), (8, 32, "surveillance"), (16, 16, "blind-sr"), (100, 128, "webcam"))


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_see_the_same_realistic_images(index, world_size):
    alone = global_batches([batches_of(index, STEPS, views=REALISTIC)])
    together = [
        batches_of(index, STEPS, views=REALISTIC, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    assert_same(global_batches(together), alone)


def test_resuming_gives_the_same_realistic_images(index):
    alone = batches_of(index, STEPS, views=REALISTIC)
    rest = batches_of(index, STEPS - 3, views=REALISTIC, resume=alone[2].state.to_dict())
    assert_same(global_batches([rest]), global_batches([alone[3:]]))


def test_presets_change_neither_the_other_views_nor_what_is_drawn(index):
    """Sizes, images and flips are those of a loader without presets; images at full size stay as they are."""
    plain = batches_of(index, 2, views=[view[:2] for view in REALISTIC])
    seen = 0
    for batch, before in zip(batches_of(index, 2, views=REALISTIC), plain, strict=True):
        assert batch.state == before.state
        assert np.array_equal(batch.sizes, before.sizes)
        assert torch.equal(batch.images[0], before.images[0])
        changed = (batch.images != before.images).flatten(2).any(2).numpy()
        assert np.array_equal(changed[1:], batch.sizes[1:] < 128)
        seen += changed.sum()
        close = (batch.images.float() - before.images.float()).abs().mean((2, 3, 4))
        assert close.max() < 60  # flipped as the others are
    assert seen > 16


def test_each_view_epoch_and_slot_draws_other_parameters(tmp_path):
    index = write_set(tmp_path, [jpeg_of(128)] * 8)
    batches = batches_of(index, 2, views=[(16, 16, "surveillance")] * 2)
    images = torch.cat([batch.images for batch in batches]).flatten(0, 1)
    assert len({image.numpy().tobytes() for image in images}) == len(images) == 2 * 2 * BATCH


@pytest.mark.parametrize(
    ("view", "kind", "says"),
    [
        (
            (8, 16, "cctv"),
            PresetError,
            "degradation 'cctv' is unknown; choose surveillance, webcam, blind-sr or a file",
        ),
        ((8, 16, "none.toml"), PresetError, "none.toml: No such file or directory"),
        ((8, 200, "webcam"), PresetError, "a preset is for at most 128 px, found 200"),
        ((8, 16, 3), TypeError, "expected a preset as the third value, such as"),
        ((8, 16, "webcam", 2), TypeError, "expected a preset as the third value, such as"),
    ],
)
def test_wrong_presets_are_reported(index, view, kind, says):
    with pytest.raises(kind, match=re.escape(says)):
        Loader(index, batch_size=BATCH, views=[view])
