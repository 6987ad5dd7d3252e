"""What each rank of ``test_sharded_heads`` does; free of pytest, which spawned processes need not load."""

from __future__ import annotations

import dataclasses

import torch
from torch import distributed, multiprocessing

from model.heads import HEADS, build_center_loss, build_head
from model.losses import cross_entropy, focal

FEATURES, CLASSES, IMAGES, STEPS = 8, 11, 14, 3
CASES = [(name, sample, dtype) for name in HEADS for sample in (1.0, 0.3) for dtype in (torch.float64, torch.float32)]


def batch(number):
    generator = torch.Generator().manual_seed(number)
    features = 3.0 * torch.randn(IMAGES, FEATURES, generator=generator, dtype=torch.float64)
    return features, torch.randint(0, CLASSES, (IMAGES,), generator=generator)


def learn(name, sample, dtype, *, group=None, state=None):
    """A few steps with SGD; whole figures of each, and the head's state behind them."""
    torch.manual_seed(3)
    head = build_head(name, features=FEATURES, classes=CLASSES, sample=sample, group=group).to(dtype)
    if state is not None:
        head.load_full_state(state)
    optimiser = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    steps = []
    for number in range(STEPS):
        features, labels = batch(number)
        features = features.to(dtype).requires_grad_()
        logits = head(features, labels)
        losses = torch.stack([cross_entropy(logits), focal(logits)])
        optimiser.zero_grad()
        losses.mean().backward()
        gradients = {key: parameter.grad.clone() for key, parameter in head.named_parameters()}
        steps.append(
            {"losses": losses.detach(), "features": features.grad, "rows": (head.start, head.stop), **gradients}
        )
        optimiser.step()
    return {"steps": steps, "state": head.full_state(), "classes_here": head.stop - head.start}


def center(*, group=None):
    term = build_center_loss(features=FEATURES, classes=CLASSES, group=group).double()
    steps = []
    for number in range(STEPS):
        features, labels = batch(number)
        features.requires_grad_()
        losses = term(features, labels)
        losses.sum().backward()
        steps.append({"losses": losses.detach(), "features": features.grad})
    return {"steps": steps, "state": term.full_state()}


def work(rank, world, folder, states):
    """Everything a rank computes, into ``folder``; ``states`` are loaded by case if given."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    group = distributed.group.WORLD
    found = {case: learn(*case, group=group) for case in CASES}
    loaded = {case: learn(*case, group=group, state=state) for case, state in states.items()}
    content = {"heads": found, "loaded": loaded, "center": center(group=group), "generator": torch.get_rng_state()}
    torch.save(content, f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


@dataclasses.dataclass(frozen=True)
class Ranks:
    """``world`` processes that have ended: what each found, in rank order."""

    world: int
    found: list


def run(world, folder, states):
    folder.mkdir()
    multiprocessing.spawn(work, (world, str(folder), states), nprocs=world)
    return Ranks(world, [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(world)])
