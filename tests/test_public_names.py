"""The names that `captum_moxi` exports."""

import inspect
import subprocess
import sys
from pathlib import Path

import captum_moxi


def test_the_exported_names_are_sorted_and_exist() -> None:
    assert captum_moxi.__all__ == sorted(captum_moxi.__all__)
    assert all(hasattr(captum_moxi, name) for name in captum_moxi.__all__)


def test_every_public_class_and_function_has_a_docstring() -> None:
    objects = {name: getattr(captum_moxi, name) for name in captum_moxi.__all__}
    undocumented = [name for name, value in objects.items() if inspect.isclass(value) and not value.__doc__]
    undocumented += [name for name, value in objects.items() if inspect.isfunction(value) and not value.__doc__]
    assert undocumented == []


def test_the_package_is_typed() -> None:
    assert (Path(captum_moxi.__file__).parent / "py.typed").is_file()


def test_importing_the_package_does_not_import_optional_packages() -> None:
    # transformers and captum import some of them on their own, depending on their versions
    code = (
        "import sys, captum.attr, transformers; "
        "from transformers import AutoImageProcessor, AutoModelForImageClassification; "
        "optional = ('bokeh', 'datasets', 'pyarrow', 'ray', 'pandas'); "
        "before = [name for name in optional if name in sys.modules]; "
        "import captum_moxi; "
        "print([name for name in optional if name in sys.modules and name not in before])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
