"""Who imports whom, what documents promise, what options there are."""

from __future__ import annotations

import ast
import fnmatch
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import cli
from tests.command_line import commands

ROOT = Path(__file__).parent.parent
PACKAGES = ("shards", "pipeline", "model", "benchmarks", "commands")
# what model may import of shards and pipeline
GROUND = {
    *(
        "shards.arguments",
        "shards.attempts",
        "shards.errors",
        "shards.files",
        "shards.locks",
        "shards.messages",
        "shards.process_setting",
        "shards.store",
        "shards.system_names",
    ),
    *("pipeline.spec", "pipeline.named_specs", "pipeline.signals", "pipeline.torch_threads"),
    *("pipeline.degradation.presets", "pipeline.degradation.settings"),
}
SOURCES = ("pipeline.images", "pipeline.tables", "pipeline.sources")  # what users give
# Each layer and what it may import beside itself; a layer is a package, a sub-package or a single file.
LAYERS = {
    "shards": set(),
    "pipeline": {"shards"},  # its own files without a line below: the leaves
    "pipeline.images": {"shards"},
    "pipeline.tables": {"shards", "pipeline", "pipeline.images"},
    "pipeline.sources": {"shards", "pipeline", "pipeline.images", "pipeline.tables"},
    "pipeline.landmarks": {"shards", "pipeline", "pipeline.images", "pipeline.tables", "pipeline.sources"},
    "pipeline.fetch": {"shards", "pipeline", "pipeline.images", "pipeline.landmarks"},
    "pipeline.prepare": {
        "shards",
        "pipeline",
        "pipeline.images",
        "pipeline.tables",
        "pipeline.sources",
        "pipeline.degradation",
        "pipeline.degradation.presets",
    },
    "pipeline.build": {
        "shards",
        "pipeline",
        "pipeline.images",
        "pipeline.tables",
        "pipeline.sources",
        "pipeline.landmarks",
    },
    "pipeline.degradation": {"shards", "pipeline", "pipeline.load.degrade"},
    "pipeline.degradation.presets": {"shards", "pipeline.degradation.settings", "pipeline.tables"},
    "pipeline.load": {
        "shards",
        "pipeline",
        "pipeline.images",
        "pipeline.degradation",
        "pipeline.degradation.presets",
        "pipeline.load.degrade",
    },
    "pipeline.load.degrade": {"shards"},  # resizes batches; the rest of the folder imports DALI
    "pipeline.inspect": {
        "shards",
        "pipeline",
        "pipeline.load.degrade",
        "pipeline.degradation",
        "pipeline.degradation.presets",
    },
    "pipeline.pages": {"shards"},
    "pipeline.set_report": {
        "shards",
        "pipeline",
        "pipeline.images",
        "pipeline.inspect",
        "pipeline.pages",
        "pipeline.sources",
    },
    "pipeline.demo": {"shards", "pipeline", "pipeline.images", "pipeline.tables"},
    "model": GROUND,
    "model.backbones": {"model", *GROUND},
    "model.heads": {"model", *GROUND},
    "model.losses": {"model", "model.heads", *GROUND},
    "model.formats": {"model", "model.backbones", *GROUND},
    "model.training": {"model", "model.backbones", "model.heads", "model.losses", "model.formats", *GROUND},
    "benchmarks": {"shards", "pipeline.images", "benchmarks.scoring.protocols"},  # the type of what is read
    "benchmarks.scoring": {
        "benchmarks",
        "shards",
        "pipeline",
        "pipeline.images",
        "pipeline.prepare",
        "pipeline.degradation.presets",
    },
    "benchmarks.datasets": {
        "benchmarks",
        "benchmarks.scoring",
        "shards",
        "pipeline",
        *SOURCES,
        "pipeline.prepare",
    },
    "benchmarks.engine": {
        "benchmarks",
        "benchmarks.scoring",
        "shards",
        "pipeline",
        *SOURCES,
        "pipeline.prepare",
    },
    "benchmarks.audit": {
        "benchmarks",
        "benchmarks.engine",
        "benchmarks.scoring",
        "shards",
        "pipeline",
        "pipeline.build",
        "pipeline.images",
        "pipeline.pages",
        "pipeline.prepare",
        "pipeline.sources",
    },
    "benchmarks.search": {
        "benchmarks",
        "benchmarks.engine",
        "benchmarks.report",
        "benchmarks.scoring",
        "shards",
        "pipeline",
        "pipeline.images",
        "pipeline.sources",
    },
    "benchmarks.report": {
        "benchmarks",
        "benchmarks.scoring",
        "shards",
        "pipeline.pages",
        "pipeline.prepare",
    },
}
EVERYTHING = {*LAYERS, *GROUND}
LAYERS |= {
    "benchmarks.speed": EVERYTHING,
    "commands.diagnosis": EVERYTHING,  # what doctor looks at: everything; used by commands alone
    "commands": {*EVERYTHING, "benchmarks.speed", "commands.diagnosis"},
}
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports(path, top_level_only=False):
    tree = ast.parse(path.read_text())
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def layer_of(module):
    """The longest name in ``LAYERS`` that ``module`` lies in."""
    parts = module.split(".")
    return next(name for end in range(len(parts), 0, -1) if (name := ".".join(parts[:end])) in LAYERS)


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_data_flows_one_way(path):
    layer = layer_of(module_of(path))
    ours = {name for name in imports(path) if name.split(".")[0] in {*PACKAGES, "cli", "tests"}}
    assert {name for name in ours if layer_of(name) != layer and not {name, layer_of(name)} & LAYERS[layer]} == set()


def test_no_layer_is_allowed_what_it_does_not_import():
    """So that the layers say what the code does."""
    imported = {}
    for path in FILES:
        for name in imports(path):
            if name.split(".")[0] in PACKAGES:
                imported.setdefault(layer_of(module_of(path)), set()).update({name, layer_of(name)})
    unused = {layer: allowed - imported[layer] - GROUND for layer, allowed in LAYERS.items() if allowed < EVERYTHING}
    assert len(unused) > 20
    assert {layer: names for layer, names in unused.items() if names} == {}
    of_model = set().union(*(names for layer, names in imported.items() if layer.split(".")[0] == "model"))
    assert of_model >= GROUND


def test_every_layer_exists():
    assert {layer for layer in LAYERS if not (ROOT / layer.replace(".", "/")).with_suffix(".py").exists()} <= {
        ".".join(folder.relative_to(ROOT).parts) for folder in ROOT.glob("*/**/") if (folder / "__init__.py").exists()
    } | set(PACKAGES)


def test_what_tests_share_is_in_no_test_file():
    files = [
        path for path in (ROOT / "tests").rglob("*.py") if any(name.startswith("tests.") for name in imports(path))
    ]
    assert len(files) > 100
    names = {(path.name, name) for path in files for name in imports(path) if name.startswith("tests.")}
    assert [pair for pair in names if re.match(r"test_|conftest$", pair[1].rpartition(".")[2])] == []


def test_only_the_loader_imports_dali():
    assert [
        str(path.relative_to(ROOT)) for path in FILES if any(name.startswith("nvidia") for name in imports(path))
    ] == ["pipeline/load/decoder.py"]


def test_worker_processes_are_started_in_one_place():
    def naming(word):
        return {str(path.relative_to(ROOT)) for path in FILES if re.search(word, path.read_text())}

    assert naming(r"ProcessPoolExecutor|get_context|\.Pool\(|\.Process\(") == {"pipeline/executors.py"}
    assert naming(r"DataLoader\(") == {"benchmarks/speed/baselines.py"}


def test_shards_and_the_build_know_nothing_of_torch():
    heavy = {"torch", "nvidia", "scipy", "matplotlib"}
    for path in [
        *(ROOT / "shards").rglob("*.py"),
        *(path for room in SOURCES for path in (ROOT / room.replace(".", "/")).rglob("*.py")),
        *(ROOT / "pipeline" / "build").rglob("*.py"),
    ]:
        assert not {name.split(".")[0] for name in imports(path)} & heavy, path


def test_the_command_line_imports_nothing_heavy_at_its_top():
    light = {
        "benchmarks",
        "benchmarks.speed",
        "shards",
        "shards.arguments",
        "shards.errors",
        "shards.messages",
        "shards.process_setting",
        "model",
        "model.options",
    }
    light |= {"pipeline", "pipeline.signals", "pipeline.sources", "pipeline.sources.catalog"}
    light |= {"pipeline.degradation", "pipeline.degradation.presets", "pipeline.degradation.settings"}
    light |= {"model.training", *(f"model.training.{name}" for name in ("config", "schedule", "views"))}
    light |= {module_of(path) for path in (ROOT / "commands").glob("*.py")}
    paths = [path for path in FILES if module_of(path) in light]
    assert len(paths) == len(light)
    for path in [ROOT / "cli.py", *paths]:
        names = set(imports(path, top_level_only=True))
        assert {name.split(".")[0] for name in names - light} <= {*sys.stdlib_module_names, "click"}, path


def test_help_loads_neither_torch_nor_dali_nor_opencv():
    code = """
import sys, cli
try:
    cli.main(["train", "--help"])
except SystemExit:
    print([name for name in ("torch", "nvidia", "cv2", "numpy") if name in sys.modules], file=sys.stderr)
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.stderr == "[]\n"


def test_scores_and_searches_wait_for_no_library_that_they_do_not_use():
    """Each costs half a second of every command. Matplotlib is for reports, PyTorch for networks."""
    code = """
import sys
import benchmarks.engine.runner, benchmarks.report.comparison_table, benchmarks.report.tables, benchmarks.search.run
from commands.outputs import saved_results
with saved_results(None, None, 1, faces=True):
    print([name for name in ("scipy.stats", "scipy.optimize", "matplotlib", "torch") if name in sys.modules])
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.stdout == "[]\n", process.stderr


_ENGINE = "--batch-size --device --flip --max-pixels --network --no-cache --precision --preprocessing"
_SCORING = f"{_ENGINE} --allow-missing --json --name --no-faces --report --root"
_OWN = f"{_ENGINE} --aligned --allow-missing --json --landmarks --name --no-faces --report"
FROZEN = {
    "audit": f"{_ENGINE} --against --out --root",
    "bench all": _SCORING,
    "bench compare": "--name --report",
    "bench identify": f"{_OWN} --degrade --gallery --probes --sizes --unmated",
    "bench lfw": f"{_SCORING} --degrade --landmarks",
    "bench pairs": f"{_OWN} --degrade --root --sizes",
    "bench qmul": _SCORING,
    "bench qmul-id": _SCORING,
    "bench scface": f"{_SCORING} --landmarks",
    "bench speed all": "--chart --json --quick --root --rounds",
    "bench speed build": "--chart --json --quick --root --rounds",
    "bench speed eval": "--backbone --chart --json --quick --root --rounds",
    "bench speed gpu": "--chart --device --json --quick --root --rounds",
    "bench speed loader": "--chart --json --quick --root --rounds",
    "bench speed step": "--backbone --batch-size --chart --compile --device --json --quick --root --rounds",
    "bench tinyface": _SCORING,
    "bench xqlfw": f"{_SCORING} --landmarks",
    "build-shards": "--aligned --exclude --executor --finish --group --images-per-shard --landmarks --list --max-pixels"
    " --min-images --out --part --ray-address --retry-failed --root --size --source --split --template --workers",
    "calibrate": "--out --setting",
    "demo-data": "--identities --images --out --seed",
    "doctor": "--json --network --preprocessing",
    "embed": f"{_ENGINE} --aligned --down --group --identity --landmarks --out --weights",
    "export huggingface": "--network --out",
    "export onnx": "--network --out --preprocess",
    "fetch": "--mirror --timeout",
    "landmarks": "--choose --csv --max-pixels --model --out --workers",
    "inspect": "--degrade --out --report",
    "search": "--calibration --csv --index --out --top",
    "train": "--accumulate --activation-checkpointing --allow-missing --backbone --batch-size --best --cache-folder"
    " --cache-size --class-rows"
    " --clip-norm --compile --config --degrade --device --ema --eval --eval-every --eval-root --freeze"
    " --from --head --init --keep --loader-threads --log-every --losses --lr --max-skipped --optimizer --order"
    " --out --precision --print-config --recipe --resume --save-every --schedule --seed --shard-head"
    " --shards --steps --teacher --teacher-preprocessing --triplets --views --weight-decay --window",
    "verify": "--full",
}


def test_commands_and_options_are_frozen():
    """People's scripts depend on them: a change here is a change for the CHANGELOG."""
    found = {
        name: sorted(p.opts[0] for p in command.params if isinstance(p, click.Option)) for name, command in commands()
    }
    assert found == {name: sorted(options.split()) for name, options in FROZEN.items()}


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_option_is_explained(name, command):
    assert command.help
    assert all(option.help for option in command.params if isinstance(option, click.Option)), name


@pytest.mark.parametrize("words", [(), ("bench",), ("bench", "speed"), ("export",)], ids=" ".join)
def test_lists_of_commands_are_not_cut_on_a_narrow_terminal(words):
    text = CliRunner().invoke(cli.main, [*words, "--help"], terminal_width=80).output
    assert len(re.findall(r"^  [a-z-]+ +\w", text.partition("Commands:")[2], re.M)) >= 2
    assert "..." not in text.partition("Commands:")[2]


def test_ci_runs_the_same_tests():
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_text_is_ascii_and_merged():
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout
    texts = [ROOT / name for name in tracked.split("\0") if name.endswith((".py", ".md", ".cfg", ".toml", ".txt"))]
    read = {str(path): path.read_text() for path in texts if path.exists()}
    assert len(read) > 30
    assert [path for path, text in read.items() if not text.isascii()] == []
    assert [path for path, text in read.items() if re.search("^(<{7}|>{7}) ", text, re.M)] == []


def test_parquet_is_read_by_one_thread():
    """A thread of PyArrow that frees a buffer of Python while the process ends aborts it (SIGABRT instead of code 1)."""
    calls = [
        (file.relative_to(ROOT).as_posix(), call)
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        if call.func.attr in ("iter_batches", "read_row_group", "read_row_groups")
        or ast.unparse(call.func) == "pq.read_table"
    ]
    assert len(calls) > 4
    threaded = [(file, call.lineno) for file, call in calls if "use_threads=False" not in ast.unparse(call)]
    assert threaded == []


def test_no_folder_of_tests_is_left_out(pytestconfig):
    """pytest leaves out folders with names such as ``build``, unless it is told otherwise."""
    patterns, folders = (
        pytestconfig.getini("norecursedirs"),
        {path.parent for path in (ROOT / "tests").rglob("test_*.py")},
    )
    assert ROOT / "tests" / "pipeline" / "build" in folders
    assert [folder for folder in folders if any(fnmatch.fnmatch(folder.name, pattern) for pattern in patterns)] == []
