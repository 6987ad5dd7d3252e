"""Python and the libraries: do they import, are they recent enough, and does one package hide another?"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from commands.diagnosis.findings import Finding, fail, note, ok, warn
from model.errors import last_line
from shards.errors import LrfrError
from shards.messages import CHECKOUT, install_command, is_checkout, requirements

OURS = ("shards", "pipeline", "model", "benchmarks", "commands", "cli")
PYTHONS = ((3, 11), (3, 13))  # oldest and newest that are tested
PROBE_S = 300.0  # only a library that hangs takes so long
INSTALL = install_command()
_PROBES = ("torch", "dali", "cv2", "others", "litert")
# what the loader of shared libraries says, and which packages of Debian and Ubuntu have them
_SYSTEM_LIBRARIES = {
    "libGL.so.1": "apt-get install libgl1, or take the headless OpenCV",
    "libgthread-2.0.so.0": "apt-get install libglib2.0-0",
    "libgomp.so.1": "apt-get install libgomp1",
}


class ProbeError(LrfrError):
    """A library that does not import or work."""


@dataclasses.dataclass(frozen=True)
class Probes:
    """The processes that import one library each; all run at the same time."""

    processes: dict[str, subprocess.Popen[str]]

    def facts(self, name: str) -> dict[str, Any]:
        """What a probe printed. Raises: ProbeError: it failed; the message is the last line that it wrote."""
        process = self.processes[name]
        try:
            out, err = process.communicate(timeout=PROBE_S)
        except subprocess.TimeoutExpired:
            raise ProbeError(f"does not finish its import within {PROBE_S:.0f} s") from None
        if process.returncode < 0:
            raise ProbeError(f"its import ends the process by signal {-process.returncode}")
        try:
            return dict(json.loads(out.splitlines()[-1]))
        except (ValueError, IndexError):
            raise ProbeError((err.strip().splitlines() or [f"exit code {process.returncode}"])[-1]) from None


@contextlib.contextmanager
def started_probes() -> Iterator[Probes]:
    """Starts all probes; ends those that still run after the block."""
    probe = str(Path(__file__).with_name("probe.py"))
    processes = {
        name: subprocess.Popen(
            [sys.executable, "-P", probe, name],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        for name in _PROBES
    }
    try:
        yield Probes(processes)
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()


def python_findings() -> Iterator[Finding]:
    """The interpreter and lrfr itself."""
    version = f"Python {platform.python_version()}, {sys.executable}"
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        yield warn(f"{version}: not tested", "use Python 3.11, 3.12 or 3.13")
    else:
        yield ok(version)
    machine = f"{platform.system()} {platform.release()}, {platform.machine()}"
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        yield warn(f"{machine}: not tested", "use Linux on x86-64")
    else:
        yield ok(machine)
    yield from _own_packages()
    yield from _versions()


def _own_packages() -> Iterator[Finding]:
    """Are our packages ours? Their names are general, so others use them, too."""
    places = {name: _place(name) for name in OURS}
    foreign = {name: place for name, place in places.items() if place != CHECKOUT}
    for name, place in foreign.items():
        yield fail(
            f"the package {name} is taken from {place}, not from {CHECKOUT}",
            f"move that away, or uninstall the distribution that brings it; then: {INSTALL}",
        )
    owners = owners_of_packages()
    for name in OURS:
        for owner in sorted(set(owners.get(name, [])) - {"lrfr"}):
            yield fail(
                f"the distribution {owner} {importlib.metadata.version(owner)} also installs a package called {name}",
                f"pip uninstall {owner}, then: {INSTALL}",
            )
    if not foreign:
        yield ok(f"lrfr in {CHECKOUT}")


@functools.cache
def owners_of_packages() -> Mapping[str, list[str]]:
    """Package -> the distributions that install it."""
    return importlib.metadata.packages_distributions()


def _place(name: str) -> Path | None:
    """The folder that a package of ours is imported from."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return Path(*(spec.submodule_search_locations or [""])) if spec else None
    path = Path(spec.origin).resolve()
    return path.parent if name == "cli" else path.parent.parent


def _versions() -> Iterator[Finding]:
    """Libraries that are missing or older than required."""
    wrong = 0
    for name, least in _lower_bounds():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = ""
            if name.startswith("nvidia-dali-") and _dali():
                continue  # of another CUDA version
        if not found or _numbers(found) < _numbers(least):
            wrong += 1
            yield fail(f"{name} {found or 'is not installed'}, expected {least} or later", INSTALL)
    if not wrong:
        yield ok("every required library is there, and recent enough")


def _lower_bounds() -> Iterator[tuple[str, str]]:
    """Name and least version of each required library: of the checkout, whose setup.cfg may be newer than the install."""
    if is_checkout():
        section = (CHECKOUT / "setup.cfg").read_text().partition("install_requires =\n")[2].partition("\n\n")[0]
    else:
        section = "".join(f" {line}\n" for line in requirements())
    yield from re.findall(r"^ +([A-Za-z0-9._-]+)>=([0-9.]+)", section, re.M)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def _dali() -> list[str]:
    names = (one.metadata["Name"] or "" for one in importlib.metadata.distributions())
    return sorted({name for name in names if name.startswith("nvidia-dali-")})


def torch_findings(probes: Probes) -> Iterator[Finding]:
    try:
        facts = probes.facts("torch")
    except ProbeError as error:
        yield fail(f"PyTorch: {error}", INSTALL)
        return
    build = f"built for CUDA {facts['cuda']}" if facts["cuda"] else "CPU build"
    yield ok(f"PyTorch {facts['version']}, {build}, {facts['threads']} threads")
    if facts["gpus"]:
        yield ok(f"GPU: {', '.join(facts['gpus'])}")
    elif _has_driver() and not facts["cuda"]:
        yield warn("a GPU driver is loaded, but PyTorch is the CPU build", "install PyTorch with CUDA, see docs/faq.md")
    elif _has_driver() or "gpu_error" in facts:
        reason = facts.get("gpu_error", "no device")
        remedy = (
            "compare nvidia-smi with the CUDA version of PyTorch, see docs/faq.md; commands run on the CPU meanwhile"
        )
        yield (warn if _has_driver() else note)(f"PyTorch finds no GPU: {reason}", remedy)
    else:
        yield note("no GPU: commands run on the CPU")


def _has_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


def dali_findings(probes: Probes) -> Iterator[Finding]:
    owners = _dali()
    name = " and ".join(owners) or "DALI"
    try:
        facts = probes.facts("dali")
    except ProbeError as error:
        yield fail(
            f"{name}: {error}; train and bench speed need it", f"{INSTALL}; docs/faq.md says which DALI fits which CUDA"
        )
        return
    if len(owners) > 1:
        yield warn(f"{name} overwrite each other", f"pip uninstall all but one, then: {INSTALL}")
    yield ok(f"{name} {facts['version']}, built for CUDA {facts['cuda'][:2]}")
    for device, place in (("cpu", "CPU"), ("mixed", "GPU")):
        if f"{device}_error" in facts:
            remedy = "train --device cpu works meanwhile" if place == "GPU" else "install it again"
            reason = last_line(facts[f"{device}_error"])
            yield fail(f"DALI does not decode a JPEG on the {place}: {reason}", remedy)
        elif device in facts:
            yield ok(f"DALI decodes a JPEG on the {place}")


def opencv_findings(probes: Probes) -> Iterator[Finding]:
    owners = sorted(set(owners_of_packages().get("cv2", [])))
    try:
        facts = probes.facts("cv2")
    except ProbeError as error:
        library = next((name for name in _SYSTEM_LIBRARIES if name in str(error)), "")
        yield fail(f"OpenCV ({', '.join(owners) or 'not installed'}): {error}", _SYSTEM_LIBRARIES.get(library, INSTALL))
        return
    if len(owners) > 1:
        wrong = " ".join(name for name in owners if name != "opencv-python-headless")
        yield warn(
            f"cv2 belongs to {' and '.join(owners)}, which overwrite each other",
            f"pip uninstall {wrong}, then: pip install --force-reinstall --no-deps opencv-python-headless",
        )
    if not facts["decodes"]:
        yield fail("OpenCV does not decode a JPEG", "pip install --force-reinstall --no-deps opencv-python-headless")
    yield ok(f"OpenCV {facts['version']} of {owners[0] if owners else facts['file']}")


def other_findings(probes: Probes, data: Path) -> Iterator[Finding]:
    """The other libraries, and what landmarks needs."""
    try:
        probes.facts("others")
        yield ok("NumPy, PyArrow, SciPy, Pillow and the others import")
    except ProbeError as error:
        yield fail(f"a library does not import: {error}", INSTALL)
    try:
        probes.facts("litert")
    except ProbeError as error:
        yield note(f"landmarks cannot run: {error}", install_command("landmarks"))
        return
    yield from _model(data)


def _model(data: Path) -> Iterator[Finding]:
    from pipeline.landmarks import model

    path = data / model.FOLDER / model.FILE_NAME
    try:
        model.read_model(path)
        yield ok(f"LiteRT imports, and the landmark model is {path}")
    except model.LandmarkerError as error:
        text, _, remedy = str(error).partition("; run: ")
        yield (warn if path.exists() else note)(f"LiteRT imports; {text}", remedy)
