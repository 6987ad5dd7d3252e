"""Finds the folders and files of a data set, whatever the case of their names."""

from __future__ import annotations

from pathlib import Path

GENERATED_MARKER = "generated.json"  # demo-data writes it into every data set


def find_entry(folder: Path, name: str) -> Path | None:
    """``folder/name``, whatever the case of the name on disk; ``name`` may hold slashes."""
    for part in name.split("/"):
        found = folder / part
        if not found.exists():
            entries = sorted(folder.iterdir()) if folder.is_dir() else []
            found = next((entry for entry in entries if entry.name.lower() == part.lower()), found)
        folder = found
    return folder if folder.exists() else None


def find_folder(root: Path, dataset: str, name: str) -> Path | None:
    """The folder ``name`` of a data set: ``root`` itself, in ``root``, or in ``root/dataset``; None if there is none."""
    if root.name.lower() == name.lower() and root.is_dir():
        return root
    return find_entry(root, name) or find_entry(root / dataset, name)


def is_generated(root: Path) -> bool:
    """True if ``demo-data`` wrote the data set."""
    return (root / GENERATED_MARKER).exists()
