"""Chromium for tests of pages. Tests are skipped without Playwright or Chromium."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@contextmanager
def chromium() -> Iterator[Any]:
    """Start a headless browser. Playwright is optional, so the browser has no type here."""
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed; run pip install '.[test]'")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed; install it (Debian: apt install chromium) or set CHROMIUM to its path")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
