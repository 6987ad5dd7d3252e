"""Imports one library and prints facts about it as JSON. Run by file name, in a process of its own.

A broken library may end the process, hang, or raise anything.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

# a grey JPEG of 16 x 16 px
JPEG = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb004300100b0c0e0c0a100e0d0e1211101318281a181616183123251d"
    "283a333d3c3933383740485c4e404457453738506d51575f626768673e4d71797064785c656763ffc0000b08001000100101"
    "1100ffc4001f0000010501010101010100000000000000000102030405060708090a0bffc400b51000020103030204030505"
    "04040000017d01020300041105122131410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a"
    "25262728292a3435363738393a434445464748494a535455565758595a636465666768696a737475767778797a8384858687"
    "88898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2"
    "e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9faffda0008010100003f0028a28affd9"
)


def torch() -> dict[str, Any]:
    """PyTorch: its build, its threads and its GPUs."""
    torch = importlib.import_module("torch")
    facts: dict[str, Any] = {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
    }
    facts["gpus"] = []
    if torch.version.cuda:
        try:
            torch.zeros(1, device="cuda")
            facts["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        except (RuntimeError, AssertionError) as error:
            facts["gpu_error"] = str(error).splitlines()[0]
    return facts


def dali() -> dict[str, Any]:
    """DALI: its version, the CUDA that it is built for, and whether it decodes a JPEG on the CPU and on the GPU."""
    dali, fn = importlib.import_module("nvidia.dali"), importlib.import_module("nvidia.dali.fn")
    numpy = importlib.import_module("numpy")
    facts: dict[str, Any] = {"version": dali.__version__, "cuda": str(dali.__cuda_version__)}
    gpus = importlib.import_module("nvidia.dali.backend").GetCUDADeviceCount()
    for device, device_id in (("cpu", None), ("mixed", 0)) if gpus else (("cpu", None),):
        pipe = dali.Pipeline(batch_size=1, num_threads=1, device_id=device_id)
        with pipe:
            encoded = fn.external_source(source=lambda: [numpy.frombuffer(JPEG, numpy.uint8)])
            pipe.set_outputs(fn.decoders.image(encoded, device=device))
        try:
            pipe.build()
            facts[device] = list(pipe.run()[0][0].shape())
        except RuntimeError as error:
            facts[f"{device}_error"] = str(error)
    return facts


def cv2() -> dict[str, Any]:
    """OpenCV: its version and whether it decodes a JPEG."""
    cv2, numpy = importlib.import_module("cv2"), importlib.import_module("numpy")
    image = cv2.imdecode(numpy.frombuffer(JPEG, numpy.uint8), cv2.IMREAD_COLOR)
    return {"version": cv2.__version__, "decodes": image is not None, "file": cv2.__file__}


def others() -> dict[str, Any]:
    """The other libraries that every command needs."""
    names = (
        "numpy",
        "pyarrow",
        "pyarrow.parquet",
        "scipy.io",
        "PIL.Image",
        "simplejpeg",
        "xxhash",
        "matplotlib",
        "tqdm",
    )
    for name in names:
        importlib.import_module(name)
    return {}


def litert() -> dict[str, Any]:
    """LiteRT, which runs the landmark model."""
    importlib.import_module("ai_edge_litert.interpreter")
    return {}


if __name__ == "__main__":
    print(json.dumps({"torch": torch, "dali": dali, "cv2": cv2, "others": others, "litert": litert}[sys.argv[1]]()))
