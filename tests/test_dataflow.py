"""The layers of the package: a module imports only from modules above it, and the table shows this."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def dataflow() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dataflow", ROOT / ".ci" / "dataflow.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_module_has_a_layer(dataflow: ModuleType) -> None:
    names = {path.stem for path in (ROOT / "captum_moxi").iterdir() if not path.name.startswith(("_", "py.typed", "."))}
    assert names == set(dataflow.LAYERS)


def test_modules_import_only_from_above(dataflow: ModuleType) -> None:
    assert dataflow.violations(dataflow.dependencies()) == []


def test_a_violation_is_reported(dataflow: ModuleType) -> None:
    assert dataflow.violations({"players": {"search"}, "search": {"players"}}) == [
        "players imports search, which is below it"
    ]


def test_implied_imports_are_left_out(dataflow: ModuleType) -> None:
    imports = {"a": set(), "b": {"a"}, "c": {"a", "b"}}
    assert dataflow.reduced(imports) == {"a": set(), "b": {"a"}, "c": {"b"}}
    assert dataflow.table(imports) == "| `a` | none |\n| `b` | `a` |\n| `c` | `b` |"


def test_the_table_is_up_to_date(dataflow: ModuleType) -> None:
    assert dataflow.main(["--check"]) is None
