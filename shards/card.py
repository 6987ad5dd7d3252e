"""The README.md of a shard set: with it Hugging Face ``datasets`` opens the folder."""

from __future__ import annotations

from pathlib import Path

from shards.files import write_bytes

CARD = "README.md"
# Without the configuration, datasets takes the Parquet files for the data, and their columns differ.
CARD_TEXT = b"""\
---
configs:
- config_name: default
  data_files: shard-*.tar
---

# Shard set

Images and labels in WebDataset tars, written by lrfr. `index.parquet` and `shard-*.parquet` have a row for each image,
`manifest.json` says how the images were prepared.

```python
from datasets import load_dataset

images = load_dataset("path/of/this/folder", split="train")  # columns jpg, cls (the label) and __key__
```
"""


def write_card(root: Path) -> None:
    """Writes the card unless there is one: users may have written a better one."""
    if not (root / CARD).exists():
        write_bytes(root / CARD, CARD_TEXT)


def is_damaged(root: Path) -> bool:
    """True if the card differs from ours but has its size; a card of another size is the user's own."""
    path = root / CARD
    try:
        return path.is_file() and path.stat().st_size == len(CARD_TEXT) and path.read_bytes() != CARD_TEXT
    except OSError:
        return True
