"""The pictures of docs/see.md, taken of two galleries by Chromium: python scripts/screenshots.py one.html two.html."""

import argparse
import os
import shutil
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright


def main() -> None:
    """Open, click, take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("one", help="Gallery of the demo's set.")
    parser.add_argument("two", help="The same beside central real images.")
    parser.add_argument("--output_dir", default="docs/images")
    args = parser.parse_args()
    folder = Path(args.output_dir)
    with sync_playwright() as playwright:
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []  # which root's processes can't be in
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = opened(chromium, args.one, 1000, 548)
        page.screenshot(path=folder / "gallery.png")
        page = opened(chromium, args.one, 1000, 900)
        page.locator(".tile").nth(3).click()
        page.get_by_label("Growth").fill("20")
        page.get_by_role("img", name="picture 21 of").wait_for()
        page.screenshot(path=folder / "gallery-detail.png")
        page = opened(chromium, args.two, 390, 700, "dark")
        page.screenshot(path=folder / "gallery-phone.png")
        chromium.close()


def opened(chromium: Browser, path: str, width: int, height: int, scheme: str = "light") -> Page:
    """A gallery whose images are there."""
    page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.goto(Path(path).resolve().as_uri())
    page.locator(".tile img[src]").first.wait_for()
    page.evaluate("Promise.all([...document.images].filter(one => one.src).map(one => one.decode()))")
    return page


if __name__ == "__main__":
    main()
