"""Which errors are those of an image, and which of the source or this process."""

from __future__ import annotations

import errno
import os
import pickle

import pytest

from pipeline.sources.listing import SourceError
from pipeline.sources.watch import SourceWatch


def error_of_reading(number):
    return OSError(number, os.strerror(number), "image.jpg")


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EIO, errno.ELOOP, errno.ENAMETOOLONG])
def test_an_error_of_one_file_blames_the_image(number, tmp_path):
    SourceWatch([tmp_path, tmp_path / "none"]).check(error_of_reading(number))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT])
def test_any_other_error_is_raised(number, tmp_path):
    error = error_of_reading(number)
    with pytest.raises(OSError, match=os.strerror(number)) as raised:
        SourceWatch([tmp_path]).check(error)
    assert raised.value is error


def test_a_folder_that_was_replaced_is_gone(tmp_path):
    """As by the empty folder at which a disk was mounted. Worker processes get a copy of what their parent saw."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    watch = pickle.loads(pickle.dumps(SourceWatch([folder])))
    watch.check(error_of_reading(errno.ENOENT))
    folder.rename(tmp_path / "elsewhere")
    folder.mkdir()
    with pytest.raises(SourceError, match=r"mounted: no longer there .*; bring it back, then run the same command"):
        watch.check(error_of_reading(errno.ENOENT))


def test_a_disk_that_fails_is_no_bad_sector_of_an_image(tmp_path, monkeypatch):
    watch = SourceWatch([tmp_path])

    def fail(folder):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder))

    monkeypatch.setattr(os, "listdir", fail)
    watch.check(error_of_reading(errno.EACCES))
    with pytest.raises(OSError, match="Input/output error") as error:
        watch.check(error_of_reading(errno.EIO))
    assert error.value.filename == str(tmp_path)
