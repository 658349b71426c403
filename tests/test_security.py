"""Claims of SECURITY.md that can be read from the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

import captum_moxi

SOURCES = sorted(Path(captum_moxi.__file__).parent.rglob("*.py"))
# Modules and functions that run code from data.
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "eval", "exec"}


def nodes(kind: type[ast.AST]) -> Iterator[tuple[Path, ast.AST]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kind):
                yield path, node


def test_nothing_in_the_package_unpickles_or_evaluates_data() -> None:
    assert SOURCES
    for path, node in nodes(ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
        assert not FORBIDDEN & {name.partition(".")[0] for name in names}, path
    for path, node in nodes(ast.Name):
        assert node.id not in ("eval", "exec"), path


def test_torch_and_numpy_read_only_arrays() -> None:
    calls = [ast.unparse(node) for _, node in nodes(ast.Call)]
    assert all("weights_only=True" in call for call in calls if call.startswith("torch.load("))
    assert not any("allow_pickle" in call for call in calls)


def test_models_are_loaded_without_code_and_pickled_weights() -> None:
    # tests/models/test_huggingface.py attacks the function load.
    for path, node in nodes(ast.Call):
        call = ast.unparse(node)
        if ".from_pretrained(" in call.partition(" ")[0] and "**options" not in call:
            assert "trust_remote_code=False" in call and "use_safetensors=True" in call, (path, call)
