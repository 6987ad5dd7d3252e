"""Model card of an exported network: README.md of a Hugging Face model repository."""

from __future__ import annotations

import json

from model.backbones import EMBEDDING_SIZE
from model.choice import parse_choice
from model.formats.network import LoadedNetwork

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

A network of [lrfr](#use) that embeds face crops of {size} x {size} px in {dimensions} dimensions. The crops may be
enlarged from faces as small as 8 px. The cosine of two embeddings measures how similar the faces are.

| | |
|---|---|
| backbone | {backbone} |
| parameters | {parameters:,} |
| input | RGB, {size} x {size} px, `(x / 255 - {mean}) / {std}` |
| alignment | {alignment} |
| embedding | {dimensions} float32, not normalised |
| updates | {step} |
| digest | `{digest}` |

`preprocessor_config.json` states the preprocessing in full. The network needs exactly this preprocessing.

## Training

{training}

## Use

Run these in a checkout of lrfr. Nothing is downloaded, and no code in this folder is run.

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

For research on low-resolution face recognition, and for comparing methods on public benchmarks.

- This card states no scores: measure with `bench` before you rely on the network.
- A threshold on the cosine is valid for one camera, image size and population; set it on your own data.
- Error rates differ between groups of people. They have not been measured here.
- Faces that are aligned differently, or resized with another filter, score lower.
- The network is not made for decisions about people, or for identifying them without consent or a legal basis.

## Data licence

The training images have their own terms, which this folder does not know and which may extend to the weights. Read
them, and name the licence at the top of this file, before you publish or sell anything made with the network.
"""
_ALIGNED = "five points, similarity transform to template `{template}`"
_UNALIGNED = "none: images are resized whole"
_STATED = """The configuration of the run (`train` of lrfr), as the checkpoint states it:

```json
{config}
```"""
_UNSTATED = "The checkpoint does not state how the network was trained."


def model_card(network: LoadedNetwork, digest: str) -> str:
    """The text of README.md.

    Args:
        digest: of the exported network.
    """
    spec, training = network.spec, network.training
    return _CARD.format(
        backbone=parse_choice(network.name).name,
        size=spec.size,
        dimensions=EMBEDDING_SIZE,
        parameters=sum(value.numel() for value in network.backbone.parameters()),
        mean=spec.mean,
        std=spec.std,
        alignment=_ALIGNED.format(template=spec.template) if spec.aligned else _UNALIGNED,
        step="not stated" if network.step is None else f"{network.step:,}",
        digest=digest,
        training=_STATED.format(config=json.dumps(training, indent=1)) if training else _UNSTATED,
    )
