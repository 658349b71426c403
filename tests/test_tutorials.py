"""The tutorials run from start to end with the embedded model, and are stored with the outputs of real ones."""

import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed; pip install '.[test]'")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed; pip install '.[test]'")

FOLDER = Path(__file__).parents[1] / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_with_the_embedded_model(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if path.stem.startswith("2"):
        pytest.importorskip("skimage", reason="scikit-image is not installed; pip install '.[test]'")
    monkeypatch.setenv("CAPTUM_MOXI_MODEL", "demo")
    monkeypatch.setenv("CAPTUM_MOXI_RESNET", "demo")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": FOLDER}}
    )
    client.execute(env=dict(os.environ))
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert bool(pictures) == (not path.stem.startswith("4"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_stored_as_it_ran(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(
        output.output_type in ("error", "stream") and output.get("name") != "stdout"
        for cell in cells
        for output in cell.outputs
    )


def test_the_readme_lists_them_all() -> None:
    text = (FOLDER / "README.md").read_text()
    assert all(path.name in text for path in [*NOTEBOOKS, FOLDER / "performance.md"])
    assert len(NOTEBOOKS) == 4
