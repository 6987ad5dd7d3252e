"""Refuses ``pip install .``: it would put model, pipeline and their kin among other people's top-level packages."""

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel


class RefuseWheel(bdist_wheel):
    def run(self):
        raise SystemExit("lrfr runs from its checkout. Install it there with: pip install --editable .")


setup(cmdclass={"bdist_wheel": RefuseWheel})
