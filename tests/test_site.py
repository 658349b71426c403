"""The documentation site: its pages, links and references. One slow test builds it."""

import ast
import re
import runpy
import subprocess
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path

import pytest

import captum_moxi

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGES = ("sphinx", "myst_nb", "furo", "sphinx_copybutton", "sphinx_design")
START = DOCS / "index.md"


def without_code(page: Path) -> str:
    """Return the text of a page without its blocks of code."""
    return re.sub(r"^```(?!\{toctree\}).*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def toctree_entries(page: Path) -> list[Path]:
    """Return the pages that the toctrees of a page list."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\{toctree\}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    blocks += re.findall(r"^\.\. toctree::\n((?:[ ]+.*\n|\n)+)", text, re.MULTILINE)
    names = [line.strip() for block in blocks for line in block.splitlines() if line.strip() and ":" not in line]
    paths = [re.sub(r"^.+<(.+)>$", r"\1", name) for name in names]
    return [existing_page(page.parent / path) for path in paths]


def existing_page(path: Path) -> Path:
    """Return the file of a page that is named without its suffix."""
    files = [path.with_name(path.name + suffix) for suffix in (".md", ".rst", ".ipynb")]
    return next((file.resolve() for file in files if file.exists()), files[0])


def reachable_pages() -> set[Path]:
    """Return all pages that the toctrees contain, beginning at the start page."""
    found, waiting = {START}, [START]
    while waiting:
        page = waiting.pop()
        new = [entry for entry in toctree_entries(page) if entry not in found] if page.suffix != ".ipynb" else []
        found.update(new)
        waiting.extend(new)
    return found


def pages() -> list[Path]:
    folders = (DOCS, ROOT / "tutorials")
    return sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in {".md", ".rst", ".ipynb"})


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub and MyST create them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_a_toctree() -> None:
    assert [str(page.relative_to(ROOT)) for page in pages() if page not in reachable_pages()] == []


def test_every_entry_of_a_toctree_is_a_page() -> None:
    assert [str(page) for page in reachable_pages() if not page.exists()] == []


def test_every_public_name_is_in_the_reference() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.rst"))
    documented = set(re.findall(r"^\.\. auto(?:class|function|data):: (\w+)$", text, re.MULTILINE))
    missing = set(captum_moxi.__all__) - documented
    assert missing == set(), f"add {sorted(missing)} to a page in docs/api"
    assert documented <= set(captum_moxi.__all__)


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_every_anchor_of_a_link_exists(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", without_code(page))
    targets = [((page.parent / file) if file else page, anchor) for file, anchor in links]
    assert [f"{file}#{anchor}" for file, anchor in targets if anchor not in anchors(file)] == []


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_every_card_leads_to_a_page_and_shows_a_picture(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link.partition("#") for link in re.findall(r"^:link: (\S+)$", text, re.MULTILINE)]
    targets = [(existing_page(page.parent / file.removesuffix(".html")), anchor) for file, _, anchor in links]
    assert [str(file) for file, _ in targets if not file.exists()] == []
    assert [f"{file}#{anchor}" for file, anchor in targets if anchor and anchor not in anchors(file)] == []
    pictures = re.findall(r"^:img-top: (\S+)$", text, re.MULTILINE)
    assert [picture for picture in pictures if not (page.parent / picture).exists()] == []


def test_the_inventories_are_those_of_the_configuration() -> None:
    projects = runpy.run_path(str(DOCS / "conf.py"))["intersphinx_mapping"]
    [names] = [
        node.value
        for node in ast.parse((DOCS / "inventories" / "make.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "NAMES"
    ]
    entries = ast.literal_eval(names)
    assert set(projects) == set(entries) == {file.stem for file in (DOCS / "inventories").glob("*.inv")}
    for project, (address, file) in projects.items():
        assert address.startswith("https://") and address.endswith("/")
        *header, contents = Path(file).read_bytes().split(b"\n", 4)
        assert header[1].decode() == f"# Project: {project}"
        lines = zlib.decompress(contents).decode().splitlines()
        expected = {(f"py:{role}", name, uri.replace("$", name)) for role, name, uri in entries[project]}
        found = {(role, name, uri.replace("$", name)) for name, role, _, uri, _ in map(str.split, lines)}
        assert found == expected, f"run docs/inventories/make.py: {project}"


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    for package in PACKAGES:
        if find_spec(package.split(".")[0]) is None or find_spec(package) is None:
            pytest.skip(f"{package} is not installed; pip install '.[docs]'")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    folders = ["-c", str(DOCS), "-d", str(tmp_path / "doctrees"), str(ROOT), str(tmp_path / "site")]
    result = subprocess.run([*command, *folders], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "site" / "index.html").is_file()
    start = tmp_path / "site" / "docs" / "index.html"
    styles = re.findall(r'<link rel="stylesheet"[^>]* href="([^"?]+)', start.read_text(encoding="utf-8"))
    assert styles
    assert [style for style in styles if not (start.parent / style).is_file()] == []
    site = {path: path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.html")}
    assert any("<math xmlns" in page for page in site.values())
    # Pages load scripts and styles from the site only.
    elsewhere = r'<(?:script|iframe)[^>]* src="(?:https?:)?//|<link[^>]* rel="stylesheet"[^>]* href="(?:https?:)?//'
    assert [str(path) for path, page in site.items() if re.search(elsewhere, page)] == []
    gallery = (tmp_path / "site" / "docs" / "gallery.html").read_text(encoding="utf-8")
    links = [link.partition("#") for link in re.findall(r'sd-stretched-link[^>]* href="([^"]+)"', gallery)]
    assert len(links) == gallery.count("sd-card-img-top")
    for file, _, anchor in links:
        page = (start.parent / file).read_text(encoding="utf-8")
        assert f'id="{anchor}"' in page, f"{file}#{anchor}"
