"""What can be downloaded, from where, and what cannot."""

from __future__ import annotations

import dataclasses

from pipeline.landmarks import model
from shards.errors import LrfrError


class FetchError(LrfrError):
    """A file that could not be downloaded or unpacked."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file with a known content.

    Attributes:
        name: file name on this machine, and below a mirror.
        urls: official addresses, tried in this order.
        sha256: hex.
        size: bytes, for the progress bar; a file of more than twice as many is refused.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str
    size: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Download:
    """What ``fetch NAME`` puts where.

    Attributes:
        folder: below ``$LRFR_DATA``; holds all files.
        files: the files that are kept as they are.
        archive: tar or zip of images; None if there is none.
        images: folder of the unpacked images, below ``folder``.
        counts: published number of images and of people; None if they are not published.
    """

    title: str
    folder: str
    files: tuple[RemoteFile, ...]
    archive: RemoteFile | None = None
    images: str = ""
    counts: tuple[int, int] | None = None


# Source: scikit-learn, sklearn/datasets/_lfw.py, which uses these mirrors and digests. The data set's own host is gone.
_LFW = Download(
    title="LFW",
    folder="LFW",
    files=(
        RemoteFile(
            name="pairs.txt",
            urls=("https://ndownloader.figshare.com/files/5976006",),
            sha256="ea42330c62c92989f9d7c03237ed5d591365e89b3e649747777b70e692dc1592",
            size=155_335,
        ),
    ),
    archive=RemoteFile(
        name="lfw.tgz",
        urls=("https://ndownloader.figshare.com/files/5976018",),
        sha256="055f7d9c632d7370e6fb4afc7468d40f970c34a80d4c6f50ffec63f5a8d536c0",
        size=180_566_744,
    ),
    images="lfw",
    counts=(13_233, 5_749),
)
# Source of the addresses: https://martlgap.github.io/xqlfw/pages/download.html. Its authors publish no digests: these
# are what users of the release state in public (github.com/quocanwyf/doantotnghiep2nguoi). They have not been checked
# against a download here.
_XQLFW = Download(
    title="XQLFW",
    folder="XQLFW",
    files=(
        RemoteFile(
            name="xqlfw_pairs.txt",
            urls=("https://github.com/Martlgap/xqlfw/releases/download/1.0/xqlfw_pairs.txt",),
            sha256="636852f90b886f3f56c73b13c9775f7ffcd37662dbb189c694f6a0a605b63b84",
            size=160_795,
        ),
    ),
    archive=RemoteFile(
        name="xqlfw.zip",
        urls=("https://github.com/Martlgap/xqlfw/releases/download/1.0/xqlfw.zip",),
        sha256="1af459679fba23a12f4d83c82a81523eb930a4aec759eebefcbdde69a678962c",
        size=195_229_543,
    ),
    images="lfw_original_imgs_min_qual0.85variant11",
)
_LANDMARKER = Download(
    title="MediaPipe Face Landmarker",
    folder=model.FOLDER,
    files=(RemoteFile(name=model.FILE_NAME, urls=(model.URL,), sha256=model.SHA256, size=model.BYTES),),
)
DOWNLOADS = {"lfw": _LFW, "xqlfw": _XQLFW, "landmarker": _LANDMARKER}

# why not, and what to do
UNAVAILABLE = {
    "vggface2": "VGGFace2 is officially offline since 2020 and is not downloaded: put your own copy into {data}/VGGFace2"
    " (train/, test/, bb_landmark/), for research under the terms that you received it with; or train on any folder of"
    " identities",
    "scface": "SCface is given on request only: sign the release agreement at https://www.scface.org/ (research only),"
    " then put it into {data}/SCface",
    "qmul": "QMUL-SurvFace is not downloaded: get it at https://qmul-survface.github.io/ and accept its terms (research"
    " only), then put it into {data}/QMUL-SurvFace",
    "tinyface": "TinyFace is not downloaded: get it at https://qmul-tinyface.github.io/ and accept its terms (research"
    " only), then put it into {data}/TinyFace",
}
