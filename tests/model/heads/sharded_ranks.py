"""Rank processes of ``test_sharded_heads``, without pytest, so that they start sooner."""

from __future__ import annotations

import torch
import torch._dynamo  # the optimiser would do so in each rank
from torch import distributed, multiprocessing

from model.heads import HEADS, build_head
from model.losses.functional import cross_entropy, focal
from model.losses.terms import TERMS
from model.options import parse_choice

FEATURES, CLASSES, IMAGES, STEPS = 8, 11, 14, 2
CASES = [(name, sample, torch.float64) for name in HEADS for sample in (1.0, 0.3)]
CASES += [(name, 1.0, torch.float32) for name in ("softmax", "amsoftmax", "adaface")]
FORMS = ("arcface:form=insightface", "adaface:form=authors", "adacos:form=reference")
FORMS += ("svsoftmax:form=reference,sampling=insightface",)
CASES += [(text, 0.3, torch.float64) for text in FORMS]
LOADED = [case for case in CASES if case[1] < 1]  # the state does not depend on sampling, and loads the same way
CENTERS = ("center", "center:form=reference")
PAIR = (1, 2)  # also form a group of two, in which they have other rank numbers


def batch(number):
    generator = torch.Generator().manual_seed(number)
    features = 3.0 * torch.randn(IMAGES, FEATURES, generator=generator, dtype=torch.float64)
    return features, torch.randint(0, CLASSES, (IMAGES,), generator=generator)


def learn(name, sample, dtype, *, group=None, state=None):
    """Trains a few steps with SGD; returns losses and gradients of each step, and the final state."""
    torch.manual_seed(3)
    choice = parse_choice(name)
    options = {**choice.options, "sample": sample}
    rows = "adaface" if choice.options else "reference"
    head = build_head(choice.name, features=FEATURES, classes=CLASSES, rows=rows, group=group, **options).to(dtype)
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


def crowded(name, *, group=None):
    """A step with one class in the batch and one sampled: at least one of three ranks has no class of the sample."""
    torch.manual_seed(3)
    head = build_head(name, features=FEATURES, classes=CLASSES, sample=0.1, group=group).double()
    features = batch(0)[0].requires_grad_()
    logits = head(features, torch.full((IMAGES,), CLASSES - 1))
    losses = cross_entropy(logits)
    losses.sum().backward()
    return {"losses": losses.detach(), "features": features.grad, "columns": logits.values.shape[1]}


def center(text, *, group=None):
    torch.manual_seed(3)
    term = TERMS.parse(text).build(features=FEATURES, classes=CLASSES, group=group).double()
    steps = []
    for number in range(STEPS):
        features, labels = batch(number)
        features.requires_grad_()
        losses = term(features, labels)
        losses.sum().backward()
        steps.append({"losses": losses.detach(), "features": features.grad})
    return {"steps": steps, "state": term.full_state()}


def everything(group, states):
    """All results of a rank in ``group``, from scratch and from ``states``."""
    found = {case: learn(*case, group=group) for case in CASES}
    loaded = {case: learn(*case, group=group, state=state) for case, state in states.items()}
    few = {name: crowded(name, group=group) for name in HEADS}
    return {
        "heads": found,
        "loaded": loaded,
        "crowded": few,
        "center": {text: center(text, group=group) for text in CENTERS},
        "generator": torch.get_rng_state(),
    }


def work(rank, folder, states):
    """One of three processes: the pair continues from ``states``, then all three from the states of the pair."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=3)
    pair = distributed.new_group(list(PAIR))
    if rank in PAIR:
        torch.save(everything(pair, states), f"{folder}/pair{rank}.pt")
    distributed.barrier()
    found = torch.load(f"{folder}/pair{PAIR[0]}.pt", weights_only=False)
    saved = {case: found["heads"][case]["state"] for case in LOADED}
    torch.save(everything(distributed.group.WORLD, saved), f"{folder}/world{rank}.pt")
    distributed.destroy_process_group()


def run(folder, states):
    """Results in rank order: of the pair, and of all three."""
    multiprocessing.set_forkserver_preload([__name__])  # one import of PyTorch, not three
    multiprocessing.start_processes(work, (str(folder), states), nprocs=3, start_method="forkserver")
    names = [[f"pair{rank}.pt" for rank in PAIR], [f"world{rank}.pt" for rank in range(3)]]
    return [[torch.load(folder / name, weights_only=False) for name in group] for group in names]
