"""The Gradio app, in a process of its own, in a browser."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec

import pytest
from browser import Heard, browser
from conftest import ROOT
from galleries import CLASSES, FRAMES, make_page

LAUNCH = "from hf_lgm.gallery.app import launch; launch(open('page.html', encoding='utf-8').read(), 'distilled')"

# Gradio takes long to load.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("gradio") is None, reason="Gradio is not installed: pip install 'hf_lgm[gallery]'"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Where the app of the made-up set answers."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "page.html").write_text(make_page(), encoding="utf-8")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "GRADIO_SERVER_PORT": str(port)}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH], env={**os.environ, **environment}, cwd=folder, stdout=log, stderr=log
        )
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(30)


def test_the_app_is_the_page(address):
    heard = Heard()
    with browser() as chromium:
        page = chromium.new_page(viewport={"width": 1200, "height": 800})
        page.set_default_timeout(60_000)
        heard.listen_to(page)
        page.goto(address)
        gallery = page.frame_locator("iframe[title=Gallery]")
        gallery.locator("#classes li").nth(len(CLASSES) - 1).wait_for()
        gallery.get_by_label("Search classes by name").fill("ow")
        assert gallery.locator("#classes li:visible h2").all_inner_texts() == ["owl"]
        gallery.get_by_label("Search classes by name").press("Enter")
        page.keyboard.press("Enter")
        gallery.get_by_role("dialog", name="owl").wait_for()
        gallery.get_by_label("Growth").press("Home")
        gallery.get_by_role("img", name=f"owl on the way, picture 1 of {FRAMES}").wait_for()
        page.keyboard.press("Escape")
        gallery.get_by_role("dialog").wait_for(state="hidden")
    assert heard.errors == [] and heard.elsewhere == []
    assert any(address in request for request in heard.requests)
