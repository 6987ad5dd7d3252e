"""The README.md of a shard set: with it Hugging Face ``datasets`` opens the folder."""

from __future__ import annotations

from pathlib import Path

from shards.files import open_regular, write_bytes

CARD = "README.md"
# Without the configuration, datasets takes the Parquet files for the data, and their columns differ.
DATA_FILES = b"data_files: shard-*.tar"
MAX_BYTES = 1 << 16  # at the start of a card, which are searched for this line
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
    """True if the card has the size of ours but differs, or does not say which files are the data.

    A card of another size with these lines is the user's own. There need not be any.
    """
    path = root / CARD
    try:
        if not path.is_file():
            return False
        if path.stat().st_size == len(CARD_TEXT):
            return path.read_bytes() != CARD_TEXT
        with open_regular(path) as stream:
            return DATA_FILES not in stream.read(MAX_BYTES)
    except OSError:
        return True
