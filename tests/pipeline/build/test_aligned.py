"""Aligned crops: stored as they are, resized, or framed as another template has it."""

from __future__ import annotations

import io
import itertools
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.align import fit_similarity, template_points, warp
from pipeline.build import BuildOptions, build, options_for
from pipeline.images.verbatim import is_storable
from pipeline.load.loader import Loader
from pipeline.prepare import check_supported
from pipeline.sources.source import SourceError
from pipeline.sources.templates import crop_template
from pipeline.spec import Preprocessing, spec_of
from shards.errors import LrfrError
from shards.index import ShardIndex, ShardReader
from shards.schema import Manifest
from shards.verify import verify
from tests.processes import error_of
from tests.shard_sets import rows_of

SIDE = 112


def jpeg(pixels, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", **{"quality": 90, **options})
    return stream.getvalue()


@pytest.fixture
def crops(painted, tmp_path):
    """A folder of aligned 112 px JPEGs, and their pixels (RGB) by key."""
    pixels = {}
    for person, shots in list(painted.items())[:4]:
        (tmp_path / "crops" / person).mkdir(parents=True)
        for number, (image, landmarks) in enumerate(shots):
            matrix = fit_similarity(landmarks[None], template_points("arcface", SIDE))[0][0]
            pixels[f"{person}/{number}"] = warp(np.ascontiguousarray(image), matrix, SIDE)
            (tmp_path / "crops" / f"{person}/{number}.jpg").write_bytes(jpeg(pixels[f"{person}/{number}"]))
    return tmp_path / "crops", pixels


def built(root, out, aligned="arcface", **options):
    build(options_for("folder", root=root, out=out, aligned=aligned, executor="serial", images_per_shard=8, **options))
    assert list(verify(out, full=True)) == []
    return Manifest.read(out)


def stored(out):
    """Key -> (row, JPEG)."""
    rows = {row["key"]: row for row in rows_of(out)}
    index = ShardIndex(out)
    with ShardReader(index) as reader:
        images = {index.key(number): reader.image(number) for number in range(len(index))}
    return {key: (row, images.get(key)) for key, row in rows.items()}


def test_jpegs_of_the_same_template_and_size_are_stored_as_they_are(crops, tmp_path):
    root, pixels = crops
    manifest = built(root, tmp_path / "out")
    assert spec_of(manifest) == Preprocessing(template="arcface", size=SIDE)
    assert manifest.statuses == {"ok": 20}
    check_supported(spec_of(manifest), "crops")  # benchmarks align photographs as these crops are
    found = stored(tmp_path / "out")
    assert len(found) == len(pixels) == 20
    points = template_points("arcface", SIDE)
    for key, (row, data) in found.items():
        assert data == (root / f"{key}.jpg").read_bytes()
        assert np.allclose(row["landmarks"], points.ravel())
        assert row["matrix"] == [1, 0, 0, 0, 1, 0]
        assert row["eye_distance"] == pytest.approx(np.linalg.norm(points[1] - points[0]))
        assert (row["width"], row["height"]) == (SIDE, SIDE)


def test_what_not_every_decoder_reads_alike_is_encoded_once(crops, tmp_path):
    root, pixels = crops
    image = pixels["n000001/0"]
    exif = Image.Exif()
    exif[0x0112] = 6
    camera = Image.Exif()
    camera[0x0110], camera[0x0112] = "a camera", 1
    cases = {
        "png": (cv2.imencode(".png", image[..., ::-1])[1].tobytes(), image),
        "turned": (jpeg(np.rot90(image), exif=exif, quality=100, subsampling=0), image),
        "cmyk": (None, image),
        "trailed": (jpeg(image) + bytes(100), image),
        "swollen": (jpeg(image, comment=b"c" * 60_000, icc_profile=b"i" * 90_000), image),
    }
    stream = io.BytesIO()
    Image.fromarray(image).convert("CMYK").save(stream, "JPEG", quality=100)
    cases["cmyk"] = (stream.getvalue(), image)
    as_they_are = {
        "grey": jpeg(np.asarray(Image.fromarray(image).convert("L"))),
        "progressive": jpeg(image, progressive=True),
        "444": jpeg(image, subsampling=0),
        "upright": jpeg(image, exif=camera),
    }
    for path in root.rglob("*.jpg"):
        path.unlink()
    for name, (data, _) in cases.items():
        (root / "n000001" / f"{name}.jpg").write_bytes(data)
    for name, data in as_they_are.items():
        (root / "n000002" / f"{name}.jpg").write_bytes(data)
    (root / "n000002" / "cut.jpg").write_bytes(as_they_are["444"][:-300])
    (root / "n000002" / "wide.jpg").write_bytes(jpeg(image[:96]))
    manifest = built(root, tmp_path / "out")
    assert manifest.statuses == {"ok": 9, "unreadable-image": 1, "not-square": 1}
    found = stored(tmp_path / "out")
    for name, (data, expected) in cases.items():
        kept = found[f"n000001/{name}"][1]
        assert kept != data
        assert is_storable(kept, SIDE)
        difference = np.abs(cv2.imdecode(np.frombuffer(kept, np.uint8), 1)[..., ::-1] - expected.astype(int))
        assert difference.mean() < 5, name
    for name, data in as_they_are.items():
        assert found[f"n000002/{name}"][1] == data
    assert found["n000002/wide"][0]["error_message"] == "112x96 px; an aligned crop is square"
    assert "premature end of data segment" in found["n000002/cut"][0]["error_message"]
    assert found["n000002/cut"][0]["landmarks"] is None
    assert len(found["n000001/swollen"][1]) < 20_000
    with Loader(ShardIndex(tmp_path / "out"), batch_size=2) as batches:
        for batch in itertools.islice(batches, 10):
            assert batch.images.shape == (4, 2, SIDE, SIDE, 3)
            assert float(batch.images[0].float().std()) > 10


def test_another_size_is_resized_as_crops_always_were(crops, tmp_path):
    root, _ = crops
    built(root, tmp_path / "out", size=128)
    build(options_for("crops", root=root, out=tmp_path / "crops-128", template="arcface", executor="serial"))
    found, before = stored(tmp_path / "out"), stored(tmp_path / "crops-128")
    assert len(found) == 20
    for key, (row, data) in found.items():
        assert data == before[key][1]
        assert np.allclose(row["landmarks"], template_points("arcface", SIDE).ravel())
        scale = 128 / SIDE
        assert np.allclose(row["matrix"], [scale, 0, (scale - 1) / 2, 0, scale, (scale - 1) / 2])


@pytest.mark.parametrize(("aligned", "template", "shift"), [("arcface", "seed", -8), ("seed", "arcface", 8)])
def test_another_template_is_framed_by_one_shift(crops, tmp_path, aligned, template, shift):
    root, _ = crops
    manifest = built(root, tmp_path / "out", aligned, template=template)
    assert spec_of(manifest) == Preprocessing(template=template, size=SIDE)
    for key, (row, data) in stored(tmp_path / "out").items():
        assert np.allclose(row["matrix"], [1, 0, shift, 0, 1, 0], atol=1e-5)
        image = cv2.imread(str(root / f"{key}.jpg"))
        moved = np.zeros_like(image)
        moved[:, max(shift, 0) : SIDE + min(shift, 0)] = image[:, max(-shift, 0) : SIDE + min(-shift, 0)]
        assert data == cv2.imencode(".jpg", moved, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def write_template(path, **changes):
    fields = {"name": "wide", "size": [96, 112], "points": template_points("seed", SIDE).tolist(), **changes}
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items() if value is not None]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_crops_of_a_template_file_are_framed_exactly(painted, tmp_path):
    """96 x 112 crops at twice their size, as the template file says, become what the photographs give directly."""
    template = write_template(tmp_path / "wide.toml")
    (tmp_path / "crops" / "n1").mkdir(parents=True)
    image, landmarks = painted["n000001"][0]
    matrix = fit_similarity(landmarks[None], template_points("seed", SIDE))[0][0] * 2
    crop = cv2.warpAffine(image, matrix, (192, 224), flags=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / "crops" / "n1" / "1.png"), crop[..., ::-1])
    cv2.imwrite(str(tmp_path / "crops" / "n1" / "2.png"), crop[:, :-2, ::-1])
    manifest = built(tmp_path / "crops", tmp_path / "out", template, template="arcface", size=64)
    assert manifest.statuses == {"ok": 1, "not-square": 1}
    found = stored(tmp_path / "out")
    assert found["n1/2"][0]["error_message"] == "190x224 px; an aligned crop is 96x112 px, or in proportion"
    row, data = found["n1/1"]
    matrix = np.array(row["matrix"]).reshape(2, 3)
    points = np.array(row["landmarks"]).reshape(5, 2)
    assert np.allclose(points, template_points("seed", SIDE) * 2)
    assert np.allclose(points @ matrix[:, :2].T + matrix[:, 2], template_points("arcface", 64), atol=1e-4)
    direct = warp(
        np.ascontiguousarray(image), fit_similarity(landmarks[None], template_points("arcface", 64))[0][0], 64
    )
    difference = np.abs(cv2.imdecode(np.frombuffer(data, np.uint8), 1)[..., ::-1] - direct.astype(int))[:, 8:56]
    assert difference.mean() < 4


def test_crops_of_a_template_of_their_own_are_stored_with_its_points(crops, tmp_path):
    """A spec has points of its own: no other template is needed, and JPEGs are stored as they are."""
    root, _ = crops
    points = (template_points("arcface", 224) + (3, -5)).tolist()
    path = write_template(tmp_path / "mine.toml", name="mine", size=224, points=points)
    spec = spec_of(built(root, tmp_path / "out", path, size=SIDE))
    assert (spec.template, spec.size) == ("mine", SIDE)
    assert np.allclose(spec.points, template_points("arcface", SIDE) + (1.5, -2.5))
    assert stored(tmp_path / "out")["n000001/0"][1] == (root / "n000001/0.jpg").read_bytes()
    framed = built(root, tmp_path / "framed", path, template="arcface", size=SIDE)
    assert spec_of(framed) == Preprocessing(template="arcface", size=SIDE)
    matrix = stored(tmp_path / "framed")["n000001/0"][0]["matrix"]
    assert np.allclose(matrix, [1, 0, -1.5, 0, 1, 2.5], atol=1e-4)
    check_supported(spec, "out")
    with pytest.raises(SourceError, match=r"^--aligned: 'arcface' names another template; choose another name"):
        built(root, tmp_path / "x", write_template(path, name="arcface", size=224, points=points))


def test_a_file_with_the_points_of_a_built_in_template_is_that_template(crops, tmp_path):
    root, _ = crops
    path = write_template(
        tmp_path / "mine.toml", name="mine", size=224, points=template_points("arcface", 224).tolist()
    )
    assert crop_template(path).built_in == "arcface"
    assert spec_of(built(root, tmp_path / "out", path, size=SIDE)) == Preprocessing(template="arcface", size=SIDE)
    assert stored(tmp_path / "out")["n000001/0"][1] == (root / "n000001/0.jpg").read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": None}, "name: missing or unknown"),
        ({"color": "BGR"}, "color: missing or unknown"),
        ({"name": ""}, "name is not a short text"),
        ({"name": "a\x1b[31m"}, "name is not a short text"),
        ({"size": 0}, "size is not 1 to 1024 px"),
        ({"size": [112, 112, 3]}, "size is not 1 to 1024 px"),
        ({"size": 1e300}, "size is not 1 to 1024 px"),
        ({"size": True}, "size is not 1 to 1024 px"),
        ({"points": [[1, 2]] * 4}, "points are not five pairs"),
        ({"points": [[1, 2, 3]] * 5}, "points are not five pairs"),
        ({"points": [["1", 2]] * 5}, "points are not five pairs"),
        ({"points": [[10**400, 2]] * 5}, "points are not five pairs"),
        ({"points": [[1, 2]] * 5}, "the points are not in order"),
        ({"points": [[1, 1], [2, 2], [3, 3], [4, 4], [5, 5]]}, "the points are not in order"),
        (
            {"points": [[0.3, 0.4], [0.6, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]},
            "so they are normalised; multiply",
        ),
        ({"points": [[65, 51], [30, 51], [48, 71], [62, 92], [33, 92]]}, "the points are not in order"),
    ],
)
def test_a_file_that_is_no_template_is_one_line(tmp_path, changes, message):
    with pytest.raises(SourceError) as error:
        crop_template(write_template(tmp_path / "t.toml", **changes))
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 't.toml'}: not a template (")
    assert message in text
    assert text.isprintable()


@pytest.mark.parametrize("content", [b"", b"\xff", b"name = ", b"#" * (1 << 20), b"a." * 5000 + b"a = 1"])
def test_files_of_any_content_give_a_named_error(tmp_path, content):
    (tmp_path / "t.toml").write_bytes(content)
    with pytest.raises(SourceError, match=r"t\.toml: not a template \("):
        crop_template(tmp_path / "t.toml")


def test_options_that_do_not_go_together_are_refused(crops, tmp_path, run):
    root, _ = crops
    out = tmp_path / "out"
    table = tmp_path / "x.csv"
    for options, message in [
        (
            {"aligned": "curricularface"},
            "--aligned curricularface: no such template or file; expected seed, arcface or",
        ),
        ({"aligned": tmp_path / "none.toml"}, "none.toml: No such file"),
        ({"aligned": tmp_path}, "no such template or file|neither a regular file nor a pipe"),
        (
            {"aligned": "seed", "landmarks": table},
            "--source folder: --aligned crops need no landmarks; omit --landmarks",
        ),
        ({"aligned": "seed", "template": "none"}, "--template none: images are resized whole; omit --aligned"),
        ({"aligned": "seed", "source": "crops"}, "--source crops takes no --aligned; use --source folder"),
        ({"aligned": "seed", "source": "vggface2"}, "--source vggface2 takes no --aligned; use --source folder"),
        ({"template": "none", "landmarks": table}, "its images are resized whole, not aligned; omit --landmarks"),
        (
            {"aligned": write_template(tmp_path / "w.toml")},
            "--aligned wide: say which template to store: --template arcface or seed; its own crops, 96x112 px, are not",
        ),
        (
            {"aligned": "seed", "root": tmp_path / "none"},
            "none: not a folder; --root names the folder of --source folder",
        ),
    ]:
        with pytest.raises(LrfrError, match=message):
            options_for(**{"source": "folder", "root": root, "out": out, **options})
    with pytest.raises(SourceError, match="cannot store aligned crops with template none"):
        BuildOptions(
            source="folder",
            root=root,
            landmarks=(),
            out=out,
            aligned=crop_template("seed"),
            preprocessing=Preprocessing.unaligned(),
        )
    done = run("build-shards", "--source", "folder", "--root", root, "--aligned", "x.toml", "--out", "out")
    assert error_of(done) == "Error: x.toml: No such file or directory; expected a TOML file with a template"


def test_a_build_with_another_alignment_is_another_build(crops, tmp_path):
    root, _ = crops
    built(root, tmp_path / "out", size=64)
    assert built(root, tmp_path / "out", size=64).images == 20
    with pytest.raises(LrfrError, match="contains a build with different --aligned;"):
        built(root, tmp_path / "out", "seed", template="arcface", size=64)
    with pytest.raises(LrfrError, match="contains a build with different preprocessing;"):
        built(root, tmp_path / "out")


@pytest.mark.heavy
def test_a_network_trained_on_aligned_crops_is_scored_on_photographs(run, tmp_path):
    done = run("demo-data", "--out", tmp_path, "--identities", 4, "--images", 2)
    assert done.returncode == 0, done.stderr
    faces = tmp_path / "LFW" / "lfw"
    for number, path in enumerate(sorted(faces.rglob("*.jpg"))):
        crop = tmp_path / "crops" / path.parent.name / f"{number}.jpg"
        crop.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(crop), cv2.resize(cv2.imread(str(path)), (SIDE, SIDE)))
    build_shards = ["build-shards", "--source", "folder", "--root", tmp_path / "crops", "--aligned", "arcface"]
    assert run(*build_shards, "--executor", "serial").returncode == 0
    assert Manifest.read(tmp_path / "shards").preprocessing["size"] == SIDE
    train = ["train", "--backbone", "mobilefacenet", "--steps", 1, "--batch-size", 2, "--out", tmp_path / "runs" / "x"]
    done = run(*train, "--shards", tmp_path / "shards")
    assert done.returncode == 0, done.stderr
    done = run("bench", "lfw", "--root", tmp_path / "LFW")
    assert done.returncode == 0, done.stderr
    assert "AUC" in done.stdout or "accuracy" in done.stdout


def test_the_size_is_an_option_of_every_source(vggface2, tmp_path):
    build(options_for("vggface2", root=vggface2, out=tmp_path / "out", size=np.int64(64), executor="serial"))
    assert spec_of(Manifest.read(tmp_path / "out")) == Preprocessing(size=64)
    assert cv2.imdecode(np.frombuffer(stored(tmp_path / "out")["n000001/0001_01"][1], np.uint8), 1).shape == (64, 64, 3)
    for size, kind in [(0, ValueError), (1025, ValueError), (1.5, TypeError)]:
        with pytest.raises(kind, match="size is"):
            options_for("vggface2", root=vggface2, out=tmp_path / "out", size=size)
    with pytest.raises(TypeError, match="aligned is 5, expected the name of a template, or a path"):
        options_for("folder", root=vggface2, out=tmp_path / "out", aligned=5)
