"""`hf-lgm gallery`, as a user types it."""

import pytest
from commands import said_by
from galleries import data_of, make_page
from sets import make_set

from hf_lgm import DistilledSet, LabelledImages, select_baseline
from hf_lgm.cli import main as front
from hf_lgm.gallery import app


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """The command in this process: what was printed, and the error if there was one."""

    def run_in_process(*flags):
        monkeypatch.chdir(tmp_path)
        return said_by(front.main, ["hf-lgm", "gallery", *flags], monkeypatch, capsys)

    return run_in_process


@pytest.fixture
def folder(tmp_path, backbone, train_images):
    """A set of real images, one of each class."""
    return select_baseline("random", backbone, train_images).save_pretrained(tmp_path / "sets" / "real")


def test_one_set_where_nothing_else_is_asked(run, tmp_path):
    make_set().save_pretrained(tmp_path / "mine")
    assert run("mine") == ("Look at:   outputs/mine-gallery.html\n", None)
    found = data_of((tmp_path / "outputs" / "mine-gallery.html").read_text())
    assert found["title"] == "mine" and found["seen"] is None and len(found["sets"][0]["images"]) == 6
    assert run("--sets", "mine")[1] is None  # over the earlier one


def test_two_sets_of_one_name(run, tmp_path):
    for place in ("a", "b"):
        make_set().save_pretrained(tmp_path / place / "out")
    assert run("a/out", "b/out", "--static", "both.html")[1] is None
    assert [each["name"] for each in data_of((tmp_path / "both.html").read_text())["sets"]] == ["a/out", "b/out"]
    assert "--sets names one twice: a/out, ./a/out." in run("a/out", "./a/out")[1]


def test_with_a_model_and_real_images(run, folder, model_folder, dataset_folder, tmp_path):
    where = ["--model", model_folder, "--dataset", dataset_folder]
    for include in (False, True):
        flags = ["--include_source_images", "true"] if include else []
        assert run(folder, *where, *flags, "--static", "page.html")[1] is None
        found = data_of((tmp_path / "page.html").read_text())
        assert found["seen"] == {"model": "tiny-dinov2", "dataset": "colours", "split": "train"}
        (shown,) = found["sets"]
        for image in shown["images"]:
            assert (image["src"] is not None) == include and image["row"] is not None
            assert [near["src"] is not None for near in image["real"]] == [include] * 6
        assert [each["total"] for each in shown["confusions"]] == [8, 8, 8]


def test_images_that_were_not_published_are_found_again(run, folder, model_folder, dataset_folder, tmp_path):
    from hf_lgm import load_images

    images = load_images(dataset_folder)[0]
    assert isinstance(images, LabelledImages)
    published = select_baseline("random", model_folder, images).without_images().save_pretrained(tmp_path / "rows")
    assert not DistilledSet.from_pretrained(published).has_images
    where = ["--model", model_folder, "--dataset", dataset_folder, "--include_source_images", "true"]
    assert run("rows", *where, "--static", "page.html")[1] is None
    assert all(image["src"] for image in data_of((tmp_path / "page.html").read_text())["sets"][0]["images"])


def test_a_space_in_a_folder(run, tmp_path):
    make_set().save_pretrained(tmp_path / "mine")
    assert run("mine", "--space", "./space") == ("Look at:   space/index.html\n", None)
    assert not (tmp_path / "outputs").exists()


def test_the_app_gets_the_page(run, tmp_path, monkeypatch):
    make_set().save_pretrained(tmp_path / "mine")
    seen = []
    monkeypatch.setattr(app, "launch", lambda page, title: seen.append((data_of(page)["title"], title)))
    monkeypatch.setattr(app, "check_can_launch", lambda: None)
    assert run("mine", "--app")[1] is None and seen == [("mine", "mine")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--sets names what to look at"),
        (["./absent"], "there is no folder './absent'"),
        (["mine", "--dataset", "photos"], "--dataset needs a --model to see it through"),
        (["mine", "--model", "user/net"], "--model needs a --dataset: the real images that the set was made of."),
        (["mine", "--model", "demo-vit", "demo-convnext"], "Expected one --model to look through, found 2"),
        (["mine", "--model", "demo-vit", "--streaming", "true"], "a stream is read once: leave it out"),
        (["mine", "--space", "user/na me"], "'user/na me' can't be the name of a repository"),
        (["mine", "other"], "'other' has other classes than 'mine': sets side by side are of the same classes."),
        (["mine", "--static", "letter.txt"], "'letter.txt' is there and no gallery of hf_lgm"),
        (["mine", "--space", "./mine"], "'mine' holds something that is no gallery of hf_lgm"),
    ],
)
def test_what_can_not_be_shown(flags, message, run, tmp_path):
    make_set().save_pretrained(tmp_path / "mine")
    make_set(4, 4).save_pretrained(tmp_path / "other")
    (tmp_path / "letter.txt").write_text("Dear")
    assert message in run(*flags)[1]
    assert (tmp_path / "letter.txt").read_text() == "Dear" and not (tmp_path / "outputs").exists()


def test_the_app_needs_gradio(run, tmp_path, monkeypatch):
    make_set().save_pretrained(tmp_path / "mine")
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    assert "The app needs gradio, which is not installed: pip install 'hf_lgm[gallery]'." in run("mine", "--app")[1]


def test_an_earlier_page_may_be_written_over(run, tmp_path):
    make_set().save_pretrained(tmp_path / "mine")
    (tmp_path / "page.html").write_text(make_page())
    assert run("mine", "--static", "page.html")[1] is None
    assert data_of((tmp_path / "page.html").read_text())["title"] == "mine"
