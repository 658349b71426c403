"""Writes the table of the data flow in CONTRIBUTING.md from the imports of the package.

Usage::

    python .ci/dataflow.py          # update the table
    python .ci/dataflow.py --check  # fail if the table is out of date, or if a module imports from a layer below
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "captum_moxi"
DOCUMENT = ROOT / "CONTRIBUTING.md"
BEGIN, END = "| module | modules that it uses |\n|---|---|\n", "\n\n"

# From top to bottom. A module imports only from modules above it.
LAYERS = (
    "arguments",
    "errors",
    "registry",
    "files",
    "memory",
    "tables",
    "images",
    "players",
    "rewards",
    "kernels",
    "models",
    "heads",
    "removal",
    "game",
    "interactions",
    "search",
    "attr",
    "metrics",
    "methods",
    "comparison",
    "plot",
    "page",
    "explanation",
    "demo",
    "perturbations",
    "experiments",
    "evaluation",
    "benchmarks",
    "app",
    "cli",
)


def files_of(layer: str) -> list[Path]:
    """Return the files of a module or package."""
    folder = PACKAGE / layer
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{layer}.py"]


def imports_of(path: Path) -> Iterator[str]:
    """Yield the modules and packages of captum_moxi that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] == "captum_moxi" and len(parts) > 1 and parts[1] in LAYERS:
                yield parts[1]


def dependencies() -> dict[str, set[str]]:
    """Return the layers that each layer imports."""
    return {layer: {name for path in files_of(layer) for name in imports_of(path)} - {layer} for layer in LAYERS}


def violations(imports: dict[str, set[str]]) -> list[str]:
    """Return a sentence for each import from a layer below."""
    index_of = {layer: index for index, layer in enumerate(LAYERS)}
    return [
        f"{layer} imports {name}, which is below it"
        for layer, names in imports.items()
        for name in sorted(names)
        if index_of[name] > index_of[layer]
    ]


def reduced(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the imports without those that follow from a longer path of imports."""

    def reachable(layer: str) -> set[str]:
        return imports[layer].union(*(reachable(name) for name in imports[layer]))

    return {
        layer: {name for name in names if not any(name in reachable(other) for other in names - {name})}
        for layer, names in imports.items()
    }


def table(imports: dict[str, set[str]]) -> str:
    """Return the rows of the table: each layer, and the layers that it uses."""
    rows = {layer: ", ".join(f"`{name}`" for name in sorted(names)) for layer, names in reduced(imports).items()}
    return "\n".join(f"| `{layer}` | {names or 'none'} |" for layer, names in rows.items())


def main(arguments: list[str]) -> str | None:
    """Update or check the table. Return an error message, or None if there is no error."""
    imports = dependencies()
    if problems := violations(imports):
        return "\n".join(problems)
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    updated = before + BEGIN + table(imports) + END + after
    if "--check" in arguments:
        return None if updated == text else "the table in CONTRIBUTING.md is out of date; run python .ci/dataflow.py"
    DOCUMENT.write_text(updated, encoding="utf-8")
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
