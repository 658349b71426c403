"""Interactive HTML pages that follow a path of an image with a slider. Requires Bokeh (extra ``html``)."""

from captum_moxi.page.html import path_page
from captum_moxi.page.paths import PagePath, follow_path

__all__ = ["PagePath", "follow_path", "path_page"]
