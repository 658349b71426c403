"""The tests find each mutant of ``tests/mutants.py`` in a copy of the package. The package itself is never changed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from mutants import MUTANTS, Mutant

import captum_moxi

PACKAGE = Path(captum_moxi.__file__).parent
ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the package."""
    copy = tmp_path / "captum_moxi"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def run_tests(package: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs tests that import a copy of the package, until the first one fails."""
    code = (
        "import sys, pytest, captum_moxi; "
        f"assert captum_moxi.__file__.startswith({str(package)!r}), captum_moxi.__file__; "
        "sys.exit(pytest.main(sys.argv[1:]))"
    )
    # Without -P, the package in the current folder would be imported.
    command = [sys.executable, "-P", "-c", code, "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_the_tests_of_the_mutants_pass_without_them(copied: Path) -> None:
    result = run_tests(copied, sorted({test for mutant in MUTANTS for test in mutant.tests}))
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_found(mutant: Mutant, copied: Path) -> None:
    mutant.apply(copied)
    result = run_tests(copied, mutant.tests)
    # 1 means that a test failed. Other codes mean that pytest could not run the tests.
    assert result.returncode == 1, result.stdout
