"""Renders paths as one self-contained HTML page."""

from collections.abc import Sequence

from captum_moxi.page.data import path_data
from captum_moxi.page.paths import PagePath


def path_page(paths: Sequence[PagePath], *, labels: Sequence[str], title: str, table: str = "") -> str:
    """Render the paths of one image as an HTML page with a slider.

    The page is one self-contained file, which works without a network or a server, also on a phone. It shows the
    photograph, a heat map of the path, the image as the model sees it, the confidence in the target along the path, and
    the five most likely classes. It opens at the flip. Buttons play the path and switch between insertion and deletion,
    and a menu switches between methods. The arrow keys move by one patch, and the space bar plays the path.

    Args:
        paths (Sequence[PagePath]): One path per method and mode. All methods must have the same modes.
        labels (Sequence[str]): Names of the classes, in order of their indices.
        title (str): Title of the page.
        table (str, optional): HTML of a table below the plots.
            Default: ``""``, no table

    Returns:
        str: The HTML source.

    Raises:
        ImportError: If Bokeh is not installed.
        ValueError: If ``paths`` is empty.

    Examples::

        >>> page = path_page([follow_path(game, order, "insertion", to_images=to_images)], labels=labels, title="cat")
        >>> Path("page.html").write_text(page, encoding="utf-8")
    """
    try:
        # Bokeh is an optional dependency.
        from captum_moxi.page.layout import render_page
    except ImportError as error:
        raise ImportError("path_page requires Bokeh; run pip install 'captum-moxi[html]'") from error
    if not paths:
        raise ValueError("paths is empty; pass at least one path")
    height, width = paths[0].images.shape[1:3]
    return render_page(
        [path_data(path, labels=labels) for path in paths], size=(height, width), title=title, table=table
    )
