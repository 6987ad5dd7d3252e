"""The documentation: its commands, names and links exist, and its snippets run."""

from __future__ import annotations

import pkgutil
import re

import pytest

from cli import main
from model.heads import HEADS
from model.losses.terms import TERMS
from model.options import parse_choice
from model.training.config import TrainConfig
from shards.index import ShardIndex
from tests.command_line import commands
from tests.documents import shell_lines
from tests.processes import REPOSITORY

DOCS = sorted((REPOSITORY / "docs").rglob("*.md"))
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *DOCS]


def our_calls(page):
    """The words after ``cli.py`` or ``lrfr`` of each command line of a page."""
    for line in shell_lines(page):
        words = line.split()
        if "cli.py" in words:
            yield words[words.index("cli.py") + 1 :]
        elif words[0] == "lrfr":
            yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_commands_in_the_documentation_exist(page):
    for words in our_calls(page):
        check_call(words)
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.M))
    named = [line.split()[1] for line in shell_lines(page) if line.startswith("make ")]
    named += re.findall(r"`make ([\w-]+)", page.read_text())
    assert set(named) <= targets


def check_call(words):
    """Asserts that the command of a call exists, with the options that are given."""
    known = dict(commands())
    name = max((name for name in known if words[: len(name.split())] == name.split()), key=len, default=None)
    assert name, words
    options = {option for parameter in known[name].params for option in parameter.opts + parameter.secondary_opts}
    assert {word for word in words if word.startswith("--")} <= options | {"--help"}, words


def test_examples_in_help_texts_exist():
    groups = [main, main.commands["bench"]]
    texts = [command.help for command in [*groups, *(command for _, command in commands())]]
    calls = [line.split()[1:] for text in texts for line in text.splitlines() if line.lstrip().startswith("lrfr ")]
    assert len(calls) >= 10
    for words in calls:
        check_call(words)


def test_imports_in_the_documentation_exist():
    imports = re.compile(r"^from ((?:benchmarks|model|pipeline|shards)[\w.]*) import (.+)$", re.M)
    found = [
        (module, name)
        for page in PAGES
        for module, names in imports.findall(page.read_text())
        for name in names.split(", ")
    ]
    assert len(found) > 15
    for module, name in found:
        pkgutil.resolve_name(f"{module}:{name}")


def test_pages_show_commands():
    calls = {page.name: len(list(our_calls(page))) for page in PAGES}
    assert calls["README.md"] >= 6
    assert sum(calls.values()) >= 40


def test_readme_has_the_two_commands():
    assert {"make demo", "make test"} <= set(shell_lines(REPOSITORY / "README.md"))


def test_folders_named_in_the_readme_exist():
    names = re.findall(r"^\| `([\w./]+)` \|", (REPOSITORY / "README.md").read_text(), re.M)
    assert len(names) >= 6
    assert [name for name in names if not (REPOSITORY / name).exists()] == []


def test_links_within_the_readme_exist():
    targets = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", (REPOSITORY / "README.md").read_text())
    assert len(targets) >= 10
    assert [target for target in targets if not (REPOSITORY / target).exists()] == []


@pytest.mark.parametrize(("page", "count"), [("format.md", 1), ("guide/python.md", 2)])
def test_snippets_that_read_shards_run(page, count, shard_set, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / page).read_text(), re.S)
    blocks = [block for block in blocks if "data/shards" in block]
    assert len(blocks) == count
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shards").symlink_to(shard_set)
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        names = {}
        exec(block.replace("cuda", "cpu").replace("batch_size=128", "batch_size=4"), names)
        if "jpeg" in names:
            assert names["jpeg"].startswith(b"\xff\xd8")
        if "batch" in names:
            assert names["batch"].images.shape == (4, 4, 128, 128, 3)


@pytest.mark.heavy
def test_the_snippet_about_a_teacher_trains(shard_set, tmp_path, monkeypatch):
    page = (REPOSITORY / "docs" / "guide" / "python.md").read_text()
    [block] = [block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "Targets(" in block]
    monkeypatch.chdir(tmp_path)
    names = {
        "index": ShardIndex(shard_set),
        "embed": lambda images: images[:, ::16, ::16].reshape(len(images), -1) - 99.0,
    }
    exec(block.replace("TrainConfig(", 'TrainConfig(backbone="spherenet4", batch_size=2, steps=1, '), names)
    assert (tmp_path / "data" / "runs" / "student" / "checkpoints" / "0000001.pt").exists()


def test_the_tests_that_reliability_names_exist():
    named = re.findall(r"`([\w/]*\btest_\w+)`", (REPOSITORY / "docs" / "reliability.md").read_text())
    assert len(named) > 30
    assert [name for name in named if not (REPOSITORY / "tests" / f"{name}.py").exists()] == []


def test_every_page_is_in_the_navigation():
    named = set(re.findall(r"[\w/-]+\.md", (REPOSITORY / "mkdocs.yml").read_text()))
    assert named == {str(page.relative_to(REPOSITORY / "docs")) for page in DOCS}


@pytest.mark.parametrize("page", sorted((REPOSITORY / "docs" / "api").glob("*.md")), ids=lambda page: page.stem)
def test_the_reference_names_what_exists(page):
    entries = re.findall(r"^::: ([\w.]+)$(?:\n    options:\n      members: \[(.*)\])?", page.read_text(), re.M)
    assert entries
    for name, members in entries:
        found = pkgutil.resolve_name(name)
        assert found.__doc__, name
        assert [member for member in re.findall(r"\w+", members) if not hasattr(found, member)] == []


def test_the_table_of_differences_names_existing_options():
    section = (
        (REPOSITORY / "docs" / "guide" / "train.md").read_text().split("## Differences from other implementations")[1]
    )
    rows = [line.split(" | ") for line in section.split("\n\n")[2].splitlines()[2:]]
    assert len(rows) == 12
    assert {len(row) for row in rows} == {5}
    named = [text for row in rows for text in re.findall("`([^`]+)`", row[3])]
    registered = {**HEADS, **TERMS}
    chosen = set()
    for text in named:
        if text.startswith("--"):
            name, value = text.removeprefix("--").replace("-", "_").split(" ")
            chosen.add((name, TrainConfig(**{"backbone": "ir50", name: value}).values()[name]))
            continue
        choice = parse_choice(text)
        for option, value in choice.options.items():
            chosen.add((option, value))
        if choice.name in registered:
            assert str(registered[choice.name](**choice.options)) != str(registered[choice.name]()), text
        else:
            assert str(TrainConfig(backbone=text).backbone) == text
    owners = [
        *(cls for name, cls in registered.items() if name != "distill"),
        TrainConfig,
    ]  # its forms are no project's
    words = {
        (option, word)
        for owner in owners
        for option, declared in owner.declared().items()
        if option in ("form", "metric", "sampling", "init", "class_rows")
        for word in declared.choices
        if word not in (declared.default, "data")
    }
    assert words <= chosen
