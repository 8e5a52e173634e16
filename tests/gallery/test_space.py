"""The Space: what is written and pushed, who may see it, and what is never written over."""

import pytest
import yaml
from galleries import make_page, make_shown
from hub_server import Fault, serve_this_process

from hf_lgm.gallery.space import push_space, write_space
from hf_lgm.hub import HubError

NAMES = {"README.md", "index.html", "lgm_config.json"}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serve_this_process(monkeypatch, tmp_path / "hub") as hub:
        yield hub


def metadata(card):
    _, text, _ = card.split("---\n", 2)
    return yaml.safe_load(text)


def licensed(license_):
    shown = make_shown()
    shown.images.config["source"]["license"] = license_
    return [shown]


def test_a_folder_is_a_static_space(tmp_path):
    sets = [make_shown(name="a: [b]\n---\nsdk: docker"), make_shown(name="<b>two</b>")]
    page = make_page(*sets)
    folder = write_space(tmp_path / "space", page, sets)
    assert {path.name for path in folder.iterdir()} == NAMES
    assert (folder / "index.html").read_text() == page
    card = (folder / "README.md").read_text()
    found = metadata(card)
    assert (found["sdk"], found["app_file"]) == ("static", "index.html")
    assert found["title"] == "Gallery: a: [b] --- sdk: docker and <b>two</b>"
    assert r"- \<b\>two\</b\>, through maker/net. Licence: that of the real images: cc-by-4.0." in card
    write_space(folder, make_page(), sets)  # over an earlier one
    assert (folder / "index.html").read_text() == make_page()


def test_nothing_else_is_written_over(tmp_path):
    (tmp_path / "letter.txt").write_text("Dear")
    with pytest.raises(FileExistsError, match="holds something that is no gallery of hf_lgm: give another folder"):
        write_space(tmp_path, "page", [make_shown()])
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_push_and_push_again(hub):
    address = push_space("user/gallery", make_page(), [make_shown()])
    assert address == f"{hub.url}/spaces/user/gallery" and not hub.private
    files = hub.files("spaces", "user/gallery")
    assert set(files) == NAMES | {".gitattributes"} and files["index.html"].decode() == make_page()
    count = len(hub.repos["spaces", "user/gallery"].commits)
    push_space("user/gallery", make_page(), [make_shown()])
    assert len(hub.repos["spaces", "user/gallery"].commits) == count  # nothing is new
    push_space("user/gallery", make_page(make_shown(details=False)), [make_shown()])
    assert len(hub.repos["spaces", "user/gallery"].commits) == count + 1


def test_somebody_elses_space_stays(hub, tmp_path):
    (tmp_path / "app.py").write_text("print('mine')")
    hub.add("spaces", "user/app", tmp_path)
    with pytest.raises(HubError, match="'user/app' holds 1 other files, such as app.py"):
        push_space("user/app", make_page(), [make_shown()])
    assert set(hub.files("spaces", "user/app")) == {"app.py"}


@pytest.mark.parametrize(("license_", "is_private"), [("cc-by-4.0", False), ("cc-by-nc-4.0", True), (None, True)])
def test_as_private_as_the_sets(license_, is_private, hub):
    push_space("user/gallery", make_page(), licensed(license_))
    assert (hub.private == {"user/gallery"}) == is_private


def test_a_busy_hub_is_met_with_patience(hub):
    hub.faults = [Fault("POST /api/spaces/user/gallery/commit", "drop after")]
    push_space("user/gallery", make_page(), [make_shown()])
    assert len(hub.repos["spaces", "user/gallery"].commits) == 2
    hub.faults = [Fault("POST /api/spaces/user/other/commit", 403, times=99)]
    with pytest.raises(HubError, match="Could not commit to 'user/other': the token may not do this"):
        push_space("user/other", make_page(), [make_shown()])
