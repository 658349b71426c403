"""The tutorials run from start to end with the embedded model, and are stored with the outputs of real models."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed; pip install '.[test]'")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed; pip install '.[test]'")

FOLDER = Path(__file__).parents[1] / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PACKAGES = {"2_resnet": ["skimage"], "5_why_is_my_model_wrong": ["skimage", "pandas"]}

# A path with at least two folders, which is not a part of an address or of a relative path.
ABSOLUTE_PATH = re.compile(r"(?<![\w<.:/])/[\w.-]+/[\w.-]+/|[A-Z]:\\\\")


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def has_picture(cell: Any) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


def test_the_tutorials_are_found() -> None:
    assert [path.stem[0] for path in NOTEBOOKS] == list("12345")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_with_the_embedded_model(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in PACKAGES.get(path.stem, []):
        pytest.importorskip(package, reason=f"{package} is not installed; pip install '.[test]'")
    monkeypatch.setenv("CAPTUM_MOXI_MODEL", "demo")
    monkeypatch.setenv("CAPTUM_MOXI_RESNET", "demo")
    monkeypatch.delenv("CAPTUM_MOXI_PHOTOGRAPHS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = read(path)
    stored = [has_picture(cell) for cell in notebook.cells]
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": FOLDER}}
    )
    client.execute(env=dict(os.environ))
    assert [has_picture(cell) for cell in notebook.cells] == stored


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_as_it_ran(path: Path) -> None:
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert all(output.output_type != "error" and output.get("name", "stdout") == "stdout" for output in outputs)
    texts = [
        output.get("text", "")
        + json.dumps({kind: data for kind, data in output.get("data", {}).items() if "/png" not in kind})
        for output in outputs
    ]
    assert not [match[0] for text in texts for match in ABSOLUTE_PATH.finditer(text)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_figure_follows_a_sentence_on_how_to_read_it(path: Path) -> None:
    cells = read(path).cells
    figures = [index for index, cell in enumerate(cells) if has_picture(cell)]
    assert figures
    for index in figures:
        assert "How to read" in cells[index - 1].source, (
            f"cell {index} has a figure, but the text before does not explain it"
        )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_lead_to_files(path: Path) -> None:
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    assert [link for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text) if not (FOLDER / link).exists()] == []


@pytest.mark.parametrize("page", sorted(FOLDER.glob("*.md")), ids=lambda page: page.name)
def test_links_and_pictures_of_a_page_exist(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())
    assert [link for link in links if not (FOLDER / link).exists()] == []


def test_the_readme_lists_all_pages() -> None:
    text = (FOLDER / "README.md").read_text()
    assert all(f"({path.name})" in text for path in [*NOTEBOOKS, FOLDER / "performance.md", FOLDER / "results.md"])
