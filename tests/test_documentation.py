"""Every Python block and every command of README and docs runs as written.

The folder in which they run contains models under the hub names of the documentation, so that no network is needed.
They are small random models, or real weights in the tests marked ``real``.
"""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import text_models
import torch
import zero_shot_models
import zoo
from click.testing import CliRunner
from PIL import Image
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from captum_moxi import load
from captum_moxi.cli.main import main as command_line

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LABELS = ("tabby, tabby cat", "desk", "digital clock", "beagle", "tench", "hen")
# Pages whose code needs an optional package, with its extra.
PACKAGES_OF_PAGES = {"app": ("gradio", "app"), "quantus": ("quantus", "others")}
HUB_NAMES = ("google/vit-base-patch16-224", "facebook/deit-tiny-patch16-224", "microsoft/resnet-50")


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """Return the arguments of each `captum-moxi` command of a page that runs on one machine."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    parts = [part.strip() for line in lines if "RAY_ADDRESS" not in line for part in line.split("&&")]
    return [shlex.split(part)[1:] for part in parts if part.startswith("captum-moxi ") or part == "captum-moxi"]


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the photographs that the documentation names."""
    monkeypatch.chdir(tmp_path)
    cat = (ROOT / "tutorials" / "images" / "cat.jpg").read_bytes()
    (tmp_path / "photographs").mkdir()
    for name in ("cat.jpg", "desk.jpg", "photographs/0000_cat.jpg", "photographs/0000_dog.jpg"):
        (tmp_path / name).write_bytes(cat)
    return tmp_path


@pytest.fixture
def models_of_texts(photographs: Path) -> Path:
    """Small random models that receive texts, under the hub names."""
    zero_shot_models.save("clip", photographs / "openai" / "clip-vit-base-patch32")
    text_models.save(photographs / "textattack" / "bert-base-uncased-SST-2")
    return photographs


@pytest.fixture
def small_models(photographs: Path, models_of_texts: Path) -> Path:
    """Small random models under the hub names."""
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    vit = ViTForImageClassification(
        ViTConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=224, **names
        )
    )
    resnet = ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **names)
    )
    processor = ViTImageProcessor(size={"height": 224, "width": 224})
    for name in HUB_NAMES:
        model = zoo.randomised(resnet if "resnet" in name else vit)
        model.save_pretrained(photographs / name)
        processor.save_pretrained(photographs / name)
    # the names of the photographs contain the class that the model predicts, so that it classifies them correctly
    classifier = load(photographs / "facebook/deit-tiny-patch16-224")
    cat = Image.open("cat.jpg")
    with torch.no_grad():
        predicted = int(classifier.model(classifier.preprocess(cat)).logits.argmax())
    for path in (photographs / "photographs").iterdir():
        path.rename(path.with_name(f"{predicted:04}_{path.name[5:]}"))
    return photographs


@pytest.fixture
def real_models(photographs: Path, models_of_texts: Path, shared: Path) -> Path:
    """Real weights under the hub names of the vision transformers."""
    for name, folder in zip(HUB_NAMES, ("vit-tiny-patch16-224", "deit-tiny-patch16-224"), strict=False):
        (photographs / name).parent.mkdir(exist_ok=True)
        (photographs / name).symlink_to(shared / "models" / folder)
    return photographs


@pytest.fixture(autouse=True)
def optional_packages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends the app when it starts to wait for users. Skips pages whose package is not installed."""
    if find_spec("gradio") is not None:
        import gradio

        monkeypatch.setattr(gradio.Blocks, "block_thread", gradio.Blocks.close)
    page = request.getfixturevalue("page").stem if "page" in request.fixturenames else ""
    package, extra = PACKAGES_OF_PAGES.get(page, (None, None))
    if package is not None and find_spec(package) is None:
        pytest.skip(f"{package} is not installed; run pip install '.[{extra}]'")


def run_python(page: Path) -> None:
    namespace: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, f"{page.name}, a block of Python", "exec"), namespace)
    plt.close("all")


def run_command(arguments: list[str]) -> str:
    result = CliRunner().invoke(command_line, arguments)
    assert result.exit_code == 0, f"{shlex.join(arguments)}: {result.output}"
    plt.close("all")
    return result.output


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_python_block_runs(page: Path, small_models: Path) -> None:
    run_python(page)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_python_block_runs_on_real_weights(page: Path, real_models: Path) -> None:
    run_python(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_runs(page: Path, small_models: Path) -> None:
    for arguments in commands(page):
        run_command(arguments)


def test_the_readme_has_commands_and_python() -> None:
    assert len(blocks(ROOT / "README.md", "python")) >= 1
    assert [arguments[0] for arguments in commands(ROOT / "README.md")][:2] == ["explain", "explain"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("option", ["--help"])
@pytest.mark.parametrize("name", sorted(command_line.commands))
def test_every_command_has_help(name: str, option: str) -> None:
    assert run_command([name, option]).startswith("Usage:")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
