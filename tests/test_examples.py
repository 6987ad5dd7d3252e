"""The examples run as they are."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import types

import numpy as np
import pytest

from model.embedder import Embedder
from model.formats.network import load_network
from pipeline.named_specs import NAMED_SPECS
from tests.processes import PATIENCE_S, REPOSITORY


def test_help_of_the_python_api_makes_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["python_api.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(REPOSITORY / "examples" / "python_api.py"), run_name="__main__")
    assert ended.value.code == 0
    assert "python examples/python_api.py [FOLDER]" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.heavy
def test_python_api(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples" / "python_api.py"), str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert lines[0].startswith("32 images of 8 people")
    assert lines[1].startswith("n0000")
    assert "images (4, 4, 128, 128, 3) torch.uint8" in lines[2]
    auc, low, high = map(float, re.fullmatch(r".*AUC ([\d.]+), 95 % interval ([\d.]+) to ([\d.]+)", lines[3]).groups())
    assert 0 <= low <= auc <= high <= 1
    assert (tmp_path / "run" / "checkpoints" / "0000010.pt").exists()


def test_a_tflite_network_with_a_fixed_batch(monkeypatch, tmp_path):
    """The interpreter is stood in for: a batch of 2 is filled up, and pixels are from -1 to 1."""
    batches = []

    class Interpreter:
        def __init__(self, path, num_threads):
            assert path == "net.tflite"

        def allocate_tensors(self):
            pass

        def get_input_details(self):
            return [{"shape": np.array([2, 112, 112, 3]), "index": 0}]

        def get_output_details(self):
            return [{"index": 7}]

        def set_tensor(self, index, values):
            assert (index, values.shape, values.dtype) == (0, (2, 112, 112, 3), np.float32)
            batches.append(values)

        def invoke(self):
            pass

        def get_tensor(self, index):
            assert index == 7
            return batches[-1].reshape(2, -1)[:, :5]

    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", types.SimpleNamespace(Interpreter=Interpreter))
    monkeypatch.setenv("TFLITE", "net.tflite")
    monkeypatch.setattr(sys, "path", [str(REPOSITORY / "examples"), *sys.path])
    monkeypatch.delitem(sys.modules, "tflite_network", raising=False)
    network = load_network("tflite_network:embed")
    assert network.spec == NAMED_SPECS["arcface"]
    images = np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)
    found = Embedder(network.backbone)(images)
    np.testing.assert_allclose(found, (images.reshape(5, -1)[:, :5] - 127.5) / 128, atol=1e-6)
    del sys.modules["tflite_network"]
