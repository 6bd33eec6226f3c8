"""A real browser without a window: Debian's Chromium, by its driver."""

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_OPTIONS = (
    "--headless",
    "--no-sandbox",  # tests may run as root, which the sandbox refuses
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Browser:
    """A running browser."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def open(self, path: Path, *, width: int, dark: bool = False, paper: bool = False) -> None:
        """Show a file in a window of some width, as it looks in the dark or on paper."""
        self._driver.set_window_size(width, 900)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        media = {"media": "print" if paper else "screen", "features": [scheme]}
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        self._driver.get(path.as_uri())

    def run(self, script: str) -> Any:
        """Return what a function body of JavaScript returns."""
        return self._driver.execute_script(script)

    def picture(self, *, height: float, scale: float) -> bytes:
        """Return the top of the page as a PNG with `scale` pixels for each CSS pixel."""
        width = self.run("return innerWidth")  # a picture has no scroll bar
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": scale}
        options = {"format": "png", "clip": clip, "captureBeyondViewport": True}
        taken = self._driver.execute_cdp_cmd("Page.captureScreenshot", options)
        return base64.b64decode(taken["data"])

    def complaints(self) -> list[str]:
        """Return what the console has shown: errors of the page and refused requests."""
        return [entry["message"] for entry in self._driver.get_log("browser")]


@contextmanager
def running_browser(folder: Path) -> Iterator[Browser]:
    """Run a browser, or skip the test where there is none."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver  # noqa: PLC0415 - slow to import

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in (*_OPTIONS, f"--user-data-dir={folder}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield Browser(browser)
    finally:
        browser.quit()
