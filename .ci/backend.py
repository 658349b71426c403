"""setuptools' build backend, which reads the list of files of a source distribution from this folder.

A source distribution contains the tests, the documentation and the tutorials, so that other packagers can test it.
"""

from setuptools.build_meta import *  # noqa: F403
from setuptools.command.egg_info import manifest_maker

manifest_maker.template = ".ci/MANIFEST.in"
