"""module:function: the user's own code as a network."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from model.embedder import Embedder
from model.errors import CheckpointError
from model.formats.network import load_network
from pipeline.named_specs import NAMED_SPECS
from pipeline.spec import Preprocessing
from tests.networks import noise

SOURCE = """
import os, numpy as np, torch
from pipeline.spec import Preprocessing

seen = []

def embed(images):
    assert images.dtype == np.uint8 and images.shape[1:] == (112, 112, 3), images.shape
    seen.append(images)
    return images.reshape(len(images), -1)[:, :9].astype(float)

def tensors(images):
    return torch.from_numpy(embed(images)).requires_grad_()

def small(images):
    assert images.shape[1:] == (32, 32, 3)
    return images[:, 0, 0] * 1.0

small.preprocessing = Preprocessing.unaligned(size=32, color="BGR", mean=0.1)

def named(images):
    return images[:, 0, 0] * 1.0

named.preprocessing = "dlib"

def wrong_attribute(images):
    return images[:, 0, 0] * 1.0

wrong_attribute.preprocessing = "dlip"

def failing(images):
    raise KeyError("no such layer")

def scalar(images):
    return 0.5

def flat(images):
    return images.reshape(len(images), -1)[:, 0]

def few(images):
    return images[:1, 0, 0] * 1.0

def text(images):
    return [["a", "b"]] * len(images)

def nan(images):
    return images[:, 0, 0] * np.nan

number = 5

def unset(images):
    return os.environ["NO_SUCH_VARIABLE"]

def exiting(images):
    raise SystemExit(0)

def batchwise(images):
    found = images.reshape(len(images), -1)[:, :9].astype(float)
    return found - found.mean(0)

def by_chance(images):
    return np.random.standard_normal((len(images), 9))

def zeros(images):  # as functions do that find no face in an image
    return np.zeros((len(images), 9))
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A module with networks in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_nets.py").write_text(SOURCE)
    (tmp_path / "broken_net.py").write_text("import numpy\n\nraise ValueError('two\\nlines')\n")
    (tmp_path / "exiting_net.py").write_text("raise SystemExit(2)\n")  # a script that parses arguments
    (tmp_path / "misspelt_net.py").write_text("import numpy\ndef embed(:\n")
    (tmp_path / "needy_net.py").write_text("import no_such_package\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("my_nets", "broken_net", "needy_net"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["embed", "tensors"])
def test_a_function_gets_the_images_in_one_batch(nets, name):
    network = load_network(f"my_nets:{name}")
    assert (network.spec, network.spec_stated) == (NAMED_SPECS["insightface"], False)
    assert (network.name, network.trainable, network.cached) == (f"my_nets:{name}", False, False)
    spec, images = network.spec, noise(112, count=20)
    found = Embedder(network.backbone, mean=spec.mean, std=spec.std, color=spec.color)(images)
    assert np.array_equal(found, images.reshape(20, -1)[:, :9])
    assert np.array_equal(sys.modules["my_nets"].seen[-1], images)


def test_its_attribute_states_the_preprocessing(nets):
    network = load_network("my_nets:small")
    assert (network.spec.size, network.spec_stated, network.note) == (32, True, "")
    images = noise(32, count=20)
    spec = network.spec
    found = Embedder(network.backbone, mean=spec.mean, std=spec.std, color=spec.color)(images)
    assert np.array_equal(found, images[:, 0, 0])
    assert load_network("my_nets:named").spec == NAMED_SPECS["dlib"]
    given = load_network("my_nets:named", NAMED_SPECS["arcface"])
    assert given.spec == NAMED_SPECS["arcface"].resized(150)
    assert given.note.startswith(
        "warning: --preprocessing is not what my_nets:named states: template arcface, not dlib"
    )
    with pytest.raises(
        CheckpointError, match=r"^my_nets:small: takes images of 32 px, but --preprocessing has size = 64"
    ):
        load_network("my_nets:small", Preprocessing(size=64))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none", "none is not in my_nets, expected a function from (N, S, S, 3) uint8 RGB images to (N, D) embeddings"),
        ("number", "number is 5, expected a function from"),
        ("wrong_attribute", "its attribute preprocessing is 'dlip', expected seed, arcface, insightface, adaface,"),
        ("failing", "KeyError: 'no such layer' (FOLDER/my_nets.py, line 32: raise KeyError(\"no such layer\"))"),
        ("scalar", "returned 0.5 for 2 images, expected a function from"),
        ("flat", "returned a ndarray of uint8 and shape (2,) for 2 images, expected a function"),
        ("few", "0 of its outputs could be embeddings of 2 images (result (1, 3)), expected one of shape (N, D);"),
        ("text", "returned [['a', 'b'], ['a', 'b']] for 2 images, expected a function"),
        ("nan", "its output for a grey image is not finite"),
        ("unset", "KeyError: 'NO_SUCH_VARIABLE' (FOLDER/my_nets.py, line 52: return os.environ["),
        ("exiting", "SystemExit: 0 (FOLDER/my_nets.py, line 55: raise SystemExit(0))"),
        ("batchwise", "the embedding of an image changes with the other images of its batch, or from call to call,"),
        ("by_chance", "the embedding of an image changes with the other images of its batch, or from call to call,"),
    ],
)
def test_a_function_that_is_no_network_is_one_line(nets, name, says):
    with pytest.raises(CheckpointError) as error:
        load_network(f"my_nets:{name}")
    text = str(error.value)
    assert text.startswith(f"my_nets:{name}: {says.replace('FOLDER', str(nets))}")
    assert len(text.splitlines()) == 1


def test_a_function_may_give_zeros(nets):
    assert load_network("my_nets:zeros").embedding_size() == 9


def test_a_module_that_cannot_be_imported_is_one_line(nets):
    for name, says in [
        ("no_net", f"neither a file, a folder, nor a module no_net in {nets} or among the installed packages"),
        ("no_net.sub", f"neither a file, a folder, nor a module no_net.sub in {nets} or among the installed packages"),
        ("broken_net", f"ValueError: two lines ({nets}/broken_net.py, line 3: raise ValueError('two\\nlines'))"),
        ("exiting_net", f"SystemExit: 2 ({nets}/exiting_net.py, line 1: raise SystemExit(2))"),
        ("misspelt_net", f"SyntaxError: invalid syntax ({nets}/misspelt_net.py, line 2: def embed(:)"),
        ("needy_net", f"ModuleNotFoundError: No module named 'no_such_package' ({nets}/needy_net.py, line 1: import"),
    ]:
        with pytest.raises(CheckpointError, match=f"^{name}:embed: {re.escape(says)}"):
            load_network(f"{name}:embed")


def test_a_file_of_that_name_is_a_file(nets):
    (nets / "my_nets:embed").write_text("x")
    with pytest.raises(CheckpointError, match=r"^my_nets:embed: damaged or not a checkpoint"):
        load_network("my_nets:embed")
    assert "my_nets" not in sys.modules
