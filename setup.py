"""Refuses ``pip install .``: it would put model, pipeline and others among other people's top-level packages."""

from setuptools import setup

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:
    raise SystemExit("lrfr needs setuptools 77 or newer: pip install --upgrade setuptools") from None


class RefuseWheel(bdist_wheel):
    def run(self):
        raise SystemExit("lrfr runs from its checkout. Install it there with: pip install --editable .")


setup(cmdclass={"bdist_wheel": RefuseWheel})
