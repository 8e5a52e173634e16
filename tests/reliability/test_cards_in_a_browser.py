"""Cards of hostile files where they are read: in a browser, and their code in a process that may do nothing."""

import json
import subprocess
import sys

import pytest
from browser import browser
from cards import KINDS, MARKDOWN, anatomy, of_each_word

EVERY = 3  # one of so many files
PAGE = "http://card.example/"
PICTURES = {f"{PAGE}{name}" for name in ("preview.png", "comparison.png")}
# Runs each snippet with stand-ins for our package; whatever opens, asks or starts something is told.
SANDBOX = """
import json, sys
from types import ModuleType
from unittest.mock import MagicMock

snippets, events, is_on = json.load(sys.stdin), [], False
stand_in = MagicMock()
stand_in.return_value.mean = stand_in.return_value.std = 1.0
for name in {names}:
    sys.modules[name] = module = ModuleType(name)
    module.__getattr__ = lambda attribute: stand_in
compiled = [compile(snippet, "card", "exec") for snippet in snippets]

def hook(event, args):
    if is_on and event.split(".")[0] in "open socket subprocess os ctypes shutil import compile".split():
        events.append(event + str(args))

sys.addaudithook(hook)
for code in compiled:
    is_on = True
    exec(code, {{"print": lambda *parts: None}})
    is_on = False
print(json.dumps({{"run": len(compiled), "events": events}}))
""".format(names=["datasets", "hf_lgm", "hf_lgm.demo", "hf_lgm.evaluation.baselines", "transformers", "PIL"])


def cards(kind, every):
    """The cards of files that are not refused."""
    render, _, check_both = KINDS[kind]
    for _, _, hostile, _ in of_each_word(kind, every):
        try:
            check_both(*hostile)
        except ValueError:
            continue
        yield render(*hostile)


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_no_script_runs_and_nothing_is_asked(chromium, kind, record_property):
    """The pages of a reader who lets HTML through: nothing of theirs is on them."""
    page, asked, dialogs = chromium.new_page(), [], []
    shown = {}

    def answer(route):
        address = route.request.url
        if address == PAGE:
            route.fulfill(body=shown["page"], content_type="text/html")
        else:
            asked.append(address)
            route.abort()

    page.route("**/*", answer)
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    count = 0
    them = list(cards(kind, EVERY))
    for first in range(0, len(them), 100):
        together = them[first : first + 100]
        bodies = [MARKDOWN.render(card.split("\n---\n", 1)[1]) for card in together]
        shown["page"] = f"<!doctype html><meta charset=utf-8><body>{'<hr>'.join(bodies)}"
        page.goto(PAGE)
        found = page.evaluate(
            "[window.pwned, document.scripts.length, document.title, document.querySelectorAll('iframe, object, embed,"
            " form, style, link').length, [...document.links].map(a => a.protocol)]"
        )
        assert found[:4] == [None, 0, "", 0] and set(found[4]) <= {"http:", "https:"}
        count += len(bodies)
    page.close()
    assert set(asked) <= PICTURES and dialogs == []
    print(f"{kind}: {count} cards in a browser, {len(asked)} requests, all of our own pictures")  # noqa: T201
    record_property("counts", count)
    assert count > 300


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_the_code_does_nothing_else(kind, tmp_path, record_property):
    snippets = [anatomy(card)[-1] for card in cards(kind, EVERY)]
    done = subprocess.run(
        [sys.executable, "-I", "-c", SANDBOX],
        input=json.dumps(snippets),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["run"] == len(snippets) > 300 and list(tmp_path.iterdir()) == []
    assert found["events"] == []
    print(f"{kind}: {found['run']} snippets run; nothing opened, asked or started")  # noqa: T201
    record_property("counts", found["run"])
