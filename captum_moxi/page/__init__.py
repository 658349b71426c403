"""HTML pages with a slider that shows an image at each step of a path. Requires Bokeh (extra ``html``)."""

from captum_moxi.page.html import path_page
from captum_moxi.page.paths import PagePath, follow_path

__all__ = ["PagePath", "follow_path", "path_page"]
