"""Sphinx extension: formulas become MathML when the site is built, so browsers need no script for them."""

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

# docutils writes \setminus as a symbol that few fonts contain, and this is the same symbol in many fonts.
COMMON_SYMBOLS = str.maketrans({"\N{REVERSE SOLIDUS OPERATOR}": "\N{SET MINUS}"})


def visit_inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(_mathml(node, as_block=False))
    raise nodes.SkipNode


def visit_block(translator: HTML5Translator, node: nodes.math_block) -> None:
    # Without the padding, tall symbols extend beyond the formula, and furo shows a scroll bar.
    translator.body.append(f'<div style="padding: 0.5em 0">{_mathml(node, as_block=True)}</div>')
    raise nodes.SkipNode


def _mathml(node: nodes.math | nodes.math_block, *, as_block: bool) -> str:
    try:
        return tex2mathml(node.astext(), as_block=as_block).translate(COMMON_SYMBOLS)
    except MathError as error:
        # The builds of the tests turn warnings into errors.
        logger.warning("formula %r cannot be converted to MathML: %s", node.astext(), error, location=node)
        return ""


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer, which ``html_math_renderer = "mathml"`` selects."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
