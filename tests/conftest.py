"""For all tests."""

import gc
from collections.abc import Iterator

import pytest

from tests.browsers import launch_options


def pytest_collection_finish() -> None:
    """What is there before the first test stays; no garbage collection need walk through it.

    It is the libraries, every test's code and parameters: a third of a second each time, and each
    stage that begins collects.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Chromium; the test is skipped, and told why, where there is none."""
    playwright_api = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed"
    )
    with playwright_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(**launch_options())
        except playwright_api.Error as error:
            first = str(error).strip().splitlines()[0]
            pytest.skip(
                f"no browser (`bash launch/setup.sh --tests` installs one, as root): {first}"
            )
        yield browser
        browser.close()
