"""Preprocessing by name or from a TOML file."""

from __future__ import annotations

import pytest

from pipeline.named_specs import NAMED_SPECS, spec_name
from pipeline.sources.spec_file import read_spec
from pipeline.sources.templates import crop_template
from pipeline.spec import Preprocessing, SpecError

POINTS = "points = [[40, 50], [70, 50], [55, 65], [43, 80], [67, 80]]\n"


def read(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return read_spec(path)


def test_presets_have_names():
    assert list(NAMED_SPECS) == ["seed", "arcface", "insightface", "adaface", "magface", "facenet", "dlib"]
    for name, spec in NAMED_SPECS.items():
        assert read_spec(name) is spec
        assert spec_name(spec) == name
    assert spec_name(Preprocessing(size=64)) is None
    assert (NAMED_SPECS["seed"], NAMED_SPECS["adaface"].color) == (Preprocessing(), "BGR")


def test_a_file_states_what_differs_from_its_base(tmp_path):
    assert read(tmp_path, 'base = "arcface"\nstd = 128\nrange = 255') == Preprocessing(
        template="arcface", size=112, std=128 / 255
    )
    assert read(tmp_path, 'base = "adaface"') == NAMED_SPECS["adaface"]
    spec = read(
        tmp_path, 'base = "adaface"\ntemplate = "seed"\nmean = [0.1, 0.2, 0.3]\nfit = "inverse"\nwarp = "opencv-cubic"'
    )
    assert spec == Preprocessing(size=112, color="BGR", mean=(0.1, 0.2, 0.3))
    larger = read(tmp_path, 'base = "dlib"\nsize = 300')
    assert larger.points == tuple((2 * x, 2 * y) for x, y in NAMED_SPECS["dlib"].points)
    assert (
        read(tmp_path, 'base = "dlib"\ntemplate = "none"').to_dict()
        == Preprocessing.unaligned(size=150, mean=NAMED_SPECS["dlib"].mean, std=256 / 255).to_dict()
    )


def test_a_file_of_a_template_is_a_preprocessing(tmp_path):
    spec = read(tmp_path, 'name = "mine"\nsize = 112\n' + POINTS)
    assert (spec.template, spec.size, spec.points[1], spec.mean) == ("mine", 112, (70.0, 50.0), 0.5)
    assert crop_template(tmp_path / "mine.toml").is_of(spec)
    assert read(tmp_path, "size = 224\npoints_size = 112\n" + POINTS).points[1] == (140.0, 100.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", 'expected size = 112 and template = "arcface" or points = [[x, y], ...], or base = "arcface"'),
        ("size = 112", 'expected size = 112 and template = "arcface" or points'),
        ('size = 112\ntemplate = "dlib"', "template is 'dlib', expected seed, arcface, none"),
        ('base = "vit"', "base is 'vit', expected seed, arcface, insightface, adaface, magface, facenet, dlib"),
        ('base = "seed"\ncolour = "BGR"', "'colour': unknown key, expected some of base, template, warp, color"),
        ('base = "seed"\ncolor = "bgr"', "color is 'bgr', expected RGB, BGR"),
        ("size = 112\npoints = []", "points is [], expected five pairs of numbers"),
        (
            "size = 112\npoints = [[0.3, 0.4], [0.6, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]",
            "the points lie between 0 and 1, so they are normalised; multiply them by the size",
        ),
        ('base = "seed"\nmean = "0.5"', "mean is '0.5', expected a number, or three"),
        ('base = "seed"\nmean = [0.5, 0.5]', "mean is [0.5, 0.5], expected float, or three"),
        ('base = "seed"\nstd = 0', "std is 0.0, expected a finite number above 0"),
        ('base = "seed"\nstd = nan', "std is nan, expected a finite number above 0"),
        (
            f'base = "seed"\nmean = {"9" * 400}',
            "mean is 999999999999999999...9999999999999999999, expected a number, or three",
        ),
        ('base = "seed"\nrange = 255', "range is of mean and std, which are missing"),
        ('base = "seed"\nmean = 1\nrange = 0', "range is 0, expected 1, or 255"),
        ('base = "seed"\nsize = 5000', "size is 5000, expected one whole number from 1 to 1024 px"),
        ('base = "seed"\nsize = 1.5', "size is 1.5, expected one whole number from 1 to 1024 px"),
        ("size = [96, 112]\n" + POINTS, "size is [96, 112], expected one whole number from 1 to 1024 px"),
        ('base = "seed"\nmargin = -1', "margin is -1, expected 0 px or more, below the size"),
        ('base = "seed"\nname = "x"', "name and points_size are of points, which are missing"),
        ('size = 112\nname = "arcface"\n' + POINTS, "name is 'arcface', that of another template"),
        ('size = 112\nname = "a\\nb"\n' + POINTS, "name is not a short text"),
        ('size = 112\ntemplate = "seed"\n' + POINTS, "template and points: expected one of them"),
        ("size = 112\npoints_size = 0\n" + POINTS, "points_size is 0, expected 1 to 1024 px"),
        ("size = 112\npoints = 5", "points is 5, expected five pairs of numbers"),
        ('size = 112\npoints = [["a", "b"]]', "points is "),
        ("size = 112\n[points]\nx = 1", "points is "),
        ('size = 112\ntemplate = "none"\nmargin = 4', "template 'none' takes no points, margin, fit, stretch"),
        ("size: 112", "Expected '=' after a key in a key/value pair"),
        ("#" * 20000, "more than 16384 bytes"),
    ],
)
def test_each_fault_of_a_file_is_one_line(tmp_path, text, says):
    with pytest.raises(SpecError) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path / 'mine.toml'}: ")
    assert says in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < len(str(tmp_path)) + 250


def test_an_unknown_name_and_a_missing_file_are_errors(tmp_path):
    with pytest.raises(
        SpecError, match=r"^--preprocessing arcfase: no such preprocessing or file; expected seed, arcface,"
    ):
        read_spec("arcfase")
    with pytest.raises(SpecError, match="No such file or directory; expected a TOML file with a preprocessing"):
        read_spec(tmp_path / "none.toml")
    with pytest.raises(SpecError, match="neither a regular file nor a pipe; expected a TOML file"):
        read_spec(tmp_path)
