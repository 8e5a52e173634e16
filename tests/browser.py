"""Debian's Chromium, driven by Playwright; whatever a page complains of or asks for is written down."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Heard:
    """What a page said and asked for.

    Args:
        errors: Of its scripts and of the console.
        requests: Addresses, but for those that are in the page itself.
    """

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def listen_to(self, page) -> None:
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: self.errors.append(f"a dialog: {dialog.message}") or dialog.dismiss())
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("request", lambda request: self.requests.append(request.url))

    @property
    def elsewhere(self) -> list[str]:
        """Requests that leave this machine."""
        here = ("data", "blob", "file", "about")
        parts = [urlsplit(address) for address in self.requests if not address.startswith(here)]
        return [part.geturl() for part in parts if part.hostname != "127.0.0.1"]


@contextmanager
def browser() -> Iterator:
    """A browser, as long as the context; where there is none the test is skipped."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: pip install playwright"
    )
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("there is no Chromium on this machine: apt-get install chromium")
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0  # whose processes Chromium does not put into its sandbox
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"] if is_root else [])
        yield chromium
        chromium.close()
