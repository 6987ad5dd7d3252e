"""The model card of an exported network: README.md of a Hugging Face model repository."""

from __future__ import annotations

import json
from typing import Any

from pipeline.spec import Preprocessing

_CARD = """---
library_name: lrfr
pipeline_tag: image-feature-extraction
license: other
license_name: see-data-licence
tags:
- face-recognition
- low-resolution
- {backbone}
---

# {backbone} for low-resolution face recognition

A network of [lrfr](#use) that maps a face of {size} x {size} pixels, which may have been as small as 8 pixels once, to
{dimensions} numbers. The cosine of two faces' numbers says how alike they are.

| | |
|---|---|
| backbone | {backbone} |
| parameters | {parameters:,} |
| input | RGB, {size} x {size} px, `(x / 255 - {mean}) / {std}` |
| alignment | five points, similarity to template `{template}` |
| embedding | {dimensions} float32, not normalised |
| updates | {step} |
| digest | `{digest}` |

`preprocessor_config.json` states the preprocessing in full. The weights are worth nothing without it.

## Training

{training}

## Use

With lrfr installed, from its folder; nothing is downloaded, and no code in this folder is run:

```sh
python cli.py embed faces --landmarks faces.csv --checkpoint PATH/TO/THIS/FOLDER --out faces.parquet
python cli.py bench qmul --checkpoint PATH/TO/THIS/FOLDER
```

```python
from pathlib import Path

from model.embedder import Embedder
from model.formats.network import load_network

network = load_network(Path("PATH/TO/THIS/FOLDER"))
embed = Embedder(network.backbone, mean=network.spec.mean, std=network.spec.std)
embeddings = embed(images)  # (N, {size}, {size}, 3) uint8 RGB aligned crops -> (N, {dimensions}) float32
```

## Intended use and limits

For research on recognising faces of low resolution, and for comparing methods on public benchmarks.

- No score is part of this card: measure with `bench` before you rely on it.
- A threshold on the cosine holds for one camera, size and population; set it on data of your own.
- Error rates differ between groups of people, and have not been measured here.
- Faces aligned otherwise, or resized with another filter, score lower.
- It is not made for decisions about people, nor for identifying them without their consent or a basis in law.

## Data licence

The images that the network learned from have terms of their own, which this folder does not know and which may reach
the weights. Read them, and name the licence at the top of this file, before you publish or sell anything made with it.
"""
_STATED = """The configuration of the run, as its checkpoint states it (lrfr's `train`):

```json
{config}
```"""
_UNSTATED = "The checkpoint states nothing about how it was trained."


def model_card(config: dict[str, Any], spec: Preprocessing, parameters: int) -> str:
    """The text of README.md.

    Args:
        config: what ``config.json`` holds.
        parameters: numbers that were learned.
    """
    training = config["training"]
    return _CARD.format(
        backbone=config["backbone"],
        size=config["image_size"],
        dimensions=config["embedding_size"],
        parameters=parameters,
        mean=spec.mean,
        std=spec.std,
        template=spec.template,
        step="not stated" if config["step"] is None else f"{config['step']:,}",
        digest=config["digest"],
        training=_STATED.format(config=json.dumps(training, indent=1)) if training else _UNSTATED,
    )
