"""Names of files and folders that systems add, and that are not of a data set."""

from __future__ import annotations

# Folders and files that systems add: Synology, QNAP, NetApp, macOS, Windows, ext4. They hold thumbnails, deleted files and
# fragments, so their images do not belong to a data set. In lower case.
SYSTEM_NAMES = (
    *("@eadir", "@tmp", "@sharebin", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "__macosx", "icon\r"),
    *("$recycle.bin", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", "lost+found"),
    *("network trash folder", "temporary items", "recycler", "recycled", "~snapshot"),
)


def is_system_name(name: str) -> bool:
    """Returns True if a name begins with a dot, or belongs to a file system, an archive or a network drive."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES
