"""Archives of small files."""

from __future__ import annotations

import io
import tarfile

FACES = {"lfw/A_B/A_B_0001.jpg": b"one", "lfw/A_B/A_B_0002.jpg": b"two", "lfw/C/C_0001.JPG": b"three"}


def tar(path, files, **changes):
    with tarfile.open(path, "w:gz") as pack:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in changes.items():
                setattr(member, key, value)
            pack.addfile(member, io.BytesIO(content))
    return path
