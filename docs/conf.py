"""Settings of the documentation site.

The source folder is the root of the repository, so that README, the tutorials and the changelog are pages of the site,
and links between Markdown files work on the site as they do in the repository. Build the site with::

    sphinx-build -W --keep-going -b html -c docs . build/site
"""

import sys
from pathlib import Path

import captum_moxi

INVENTORIES = Path(__file__).parent / "inventories"
# The extension mathml is in this folder.
sys.path.insert(0, str(Path(__file__).parent))

project = "captum-moxi"
author = "The captum-moxi maintainers"
copyright = author
release = version = captum_moxi.__version__

extensions = [
    "mathml",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]

root_doc = "docs/index"
include_patterns = ["docs/**", "tutorials/**", "*.md"]
# Sphinx applies these patterns to the files of extensions, too, whose relative paths begin with "..".
exclude_patterns = ["docs/_templates/**", "tutorials/.ipynb_checkpoints/**"]
templates_path = ["_templates"]

# Tutorials are stored with their outputs. The tests execute them.
nb_execution_mode = "off"
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings state the types, together with shapes and units
autosummary_generate = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# The inventories are in the repository, so a build needs no network. docs/inventories/make.py writes them.
intersphinx_mapping = {
    "captum": ("https://captum.ai/api/", str(INVENTORIES / "captum.inv")),
    "numpy": ("https://numpy.org/doc/stable/", str(INVENTORIES / "numpy.inv")),
    "torch": ("https://docs.pytorch.org/docs/stable/", str(INVENTORIES / "torch.inv")),
    "transformers": ("https://huggingface.co/docs/transformers/main/en/", str(INVENTORIES / "transformers.inv")),
}

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"captum-moxi {release}"
html_additional_pages = {"index": "redirect.html"}
html_show_sourcelink = False
