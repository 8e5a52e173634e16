"""Pushing through the unmodified client to a Hub on 127.0.0.1: what happens at each stage when something is wrong."""

import json
import logging

import pytest
import torch
from hub_server import READ_TOKEN, TOKEN, Fault, serve_this_process
from huggingface_hub import constants
from sets import make_set
from strangers import PRIVATE, png, stored, watch, write_rows

from hf_lgm import DistilledSet, LabelledImages, LGMConfig, LGMDistiller, ProbeModel, evaluate_probe, select_baseline
from hf_lgm.evaluation.baselines import with_source_images
from hf_lgm.hub import HubError, check_tag
from hf_lgm.publishing.files import DATA_FILE, MAX_BYTES, PUBLISHED_FILES

# huggingface_hub 2.4 uploads to LFS by an argument that its HTTP client deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

SET = ("datasets", "user/set")
OPEN = {"source": {"dataset": "maker/photos", "license": "cc-by-4.0"}, "backbone": {"name": "maker/net"}}
STAGES = {
    "look": "GET /api/datasets/user/set",
    "create": "POST /api/repos/create",
    "validate": "POST /api/validate-yaml",
    "preupload": "POST /api/datasets/user/set/preupload",
    "batch": "POST /datasets/user/set.git/info/lfs",
    "upload": "PUT /lfs/",
    "commit": "POST /api/datasets/user/set/commit",
    "tag": "POST /api/datasets/user/set/tag",
}
PASSING = {
    "503": [Fault("", 503)],
    "503 twice": [Fault("", 503, times=2)],
    "503 with a page": [Fault("", 503, headers={"page": "html"})],
    "429": [Fault("", 429, headers={"Retry-After": "1"})],
    "drop before": [Fault("", "drop before")],
    "drop after": [Fault("", "drop after")],
    "slow": [Fault("", "slow")],
}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serve_this_process(monkeypatch, tmp_path / "hub") as hub:
        yield hub


def pushed_whole(hub) -> bool:
    """One commit after the empty one, with everything; tagged."""
    repo = hub.repos[SET]
    names = {".gitattributes", "README.md", "data/train-00000-of-00001.parquet", "preview.png", "lgm_config.json"}
    is_whole = set(hub.files(*SET)) == names | {"results.json"}
    return is_whole and len(repo.commits) == 2 and repo.tags == {"v1.0": repo.head}


def untouched(hub) -> bool:
    """Not there, or empty."""
    return SET not in hub.repos or (list(hub.files(*SET)) == [".gitattributes"] and not hub.repos[SET].tags)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("trouble", PASSING)
def test_trouble_that_passes_is_not_noticed(hub, stage, trouble):
    hub.faults = [Fault(STAGES[stage], f.action, f.times, f.headers) for f in PASSING[trouble]]
    assert make_set(config=OPEN).push_to_hub("user/set", tag="v1.0") == f"{hub.url}/datasets/user/set"
    assert not any(fault.times for fault in hub.faults) and pushed_whole(hub)


ADVICE = {
    401: "the token was refused, as expired or mistyped: run `hf auth login` with a new one.",
    403: "make one that may write at https://huggingface.co/settings/tokens and run `hf auth login`",
    409: "another change of it is under way: wait a moment, then run the same command again.",
    412: "somebody else has changed it meanwhile: look at what it holds",
    503: "can't be reached, or is too busy: run the same command again when it is back.",
    "drop before": "can't be reached, or is too busy: run the same command again when it is back.",
}


@pytest.mark.parametrize(
    ("stage", "status"),
    [(stage, status) for status in ADVICE for stage in STAGES if (stage, status) != ("create", 409)],  # "is there"
)
def test_trouble_that_stays_is_one_sentence(hub, stage, status):
    hub.faults = [Fault(STAGES[stage], status, times=1000)]
    with pytest.raises(HubError) as caught:
        make_set(config=OPEN).push_to_hub("user/set", tag="v1.0")
    message = str(caught.value)
    assert ADVICE[status] in message and TOKEN not in message
    if stage == "tag":
        assert "What was to be published is there, without the tag 'v1.0'." in message
        assert len(hub.repos[SET].commits) == 2 and not hub.repos[SET].tags
    else:
        assert untouched(hub)
    hub.faults = []
    make_set(config=OPEN).push_to_hub("user/set", tag="v1.0")  # the same command again
    assert pushed_whole(hub)


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("stage", STAGES)
def test_what_is_refused_for_good_is_said_in_the_server_s_words_and_not_tried_again(hub, stage, status):
    hub.faults = [Fault(STAGES[stage], status, times=1000)]
    with pytest.raises(HubError, match="made to fail") as caught:
        make_set(config=OPEN).push_to_hub("user/set", tag="v1.0")
    assert "again" not in str(caught.value) and "\n" not in str(caught.value)
    assert hub.faults[0].times == 999 if stage != "upload" else hub.faults[0].times >= 995  # the client's own
    assert stage == "tag" or untouched(hub)


@pytest.mark.parametrize("token", [TOKEN, READ_TOKEN])
def test_what_nobody_here_may_write_to_is_said_before_anything_else(hub, monkeypatch, token):
    make_set(config=OPEN).push_to_hub("user/set")
    hub.requests.clear()
    monkeypatch.setenv("HF_TOKEN", token)
    hub.foreign = {"user/set"}
    with pytest.raises(
        HubError, match="Could not write to 'user/set': the token may not do this: .* It said: You don't"
    ):
        make_set(9, 3, config=OPEN).push_to_hub("user/set")
    assert not [request for request in hub.requests if "preupload" in request or "/commit" in request]


def test_a_card_that_the_hub_refuses_leaves_no_repository(hub):
    source = {"dataset": "maker/photos", "license": "llama3"}  # which this Hub does not know
    with pytest.raises(
        HubError, match=r'Could not publish the card of .*: "license" must be one of \[apache-2.0, cc-'
    ):
        make_set(config={**OPEN, "source": source}).push_to_hub("user/set")
    assert not hub.repos and hub.requests.count("POST /api/validate-yaml") == 1


@pytest.mark.parametrize(
    "tag", ["v 1", "", ".v1", "v..1", "v1.lock", "v1.", "-v1", "v~1", "a//b", "v1@{0}", "v\t1", "@"]
)
def test_what_is_no_tag_in_git(hub, tag):
    with pytest.raises(HubError, match="can't be a tag in git: use letters, digits, dots and dashes, as in v1.0"):
        make_set(config=OPEN).push_to_hub("user/set", tag=tag)
    assert not hub.requests


@pytest.mark.parametrize("tag", ["v1.0", "1.0-rc1", "releases/v1", "ü"])
def test_what_is_a_tag_in_git(tag):
    check_tag(tag)


def test_pushing_again(hub):
    first = make_set(config=OPEN)
    first.push_to_hub("user/set", tag="v1.0")
    first.push_to_hub("user/set", tag="v1.0")
    assert pushed_whole(hub)
    with pytest.raises(HubError, match="has a tag 'v1.0' already, of other contents: choose another tag. Nothing was"):
        make_set(9, 3, config=OPEN).push_to_hub("user/set", tag="v1.0")
    assert pushed_whole(hub)
    make_set(9, 3, config=OPEN).push_to_hub("user/set", tag="v1.1")  # a new version of the same
    repo = hub.repos[SET]
    assert len(repo.commits) == 3 and repo.tags["v1.1"] == repo.head != repo.tags["v1.0"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("other", ["somebody's photos", "another set of ours"])
def test_something_else_is_not_overwritten(hub, tmp_path, overwrite, other):
    if other == "another set of ours":
        make_set(config={**OPEN, "source": {"dataset": "maker/birds"}}).save_pretrained(tmp_path / "set")
        expected = (
            r"holds another set \(maker/birds through maker/net, \? per class\): name another repository, or add"
        )
    else:
        (tmp_path / "set" / "data").mkdir(parents=True)
        (tmp_path / "set" / "data" / "train-00001-of-00002.parquet").write_bytes(b"theirs")
        expected = "holds 1 other files, such as data/train-00001-of-00002.parquet: name another repository, or add"
    repo = hub.add(*SET, tmp_path / "set")
    if overwrite:
        make_set(config=OPEN).push_to_hub("user/set", overwrite=True)
        assert "data/train-00001-of-00002.parquet" not in hub.files(*SET) and len(repo.commits) == 2
        assert DistilledSet.from_pretrained("user/set").fingerprint == make_set().fingerprint
    else:
        with pytest.raises(HubError, match=expected):
            make_set(config=OPEN).push_to_hub("user/set")
        assert len(repo.commits) == 1


def test_a_picture_of_an_older_version_goes_and_a_stranger_s_file_stays(hub, tmp_path):
    baseline = make_set(config={**OPEN, "baseline": {"kind": "random"}}, source_index=[5, 3, 1, 0, 2, 4])
    baseline.save_pretrained(tmp_path / "set")
    (tmp_path / "set" / "LICENSE").write_text("terms")
    hub.add(*SET, tmp_path / "set")
    baseline.push_to_hub("user/set")
    assert "preview.png" not in hub.files(*SET) and "LICENSE" in hub.files(*SET)


@pytest.mark.parametrize(
    ("source", "is_private", "reason"),
    [
        ({"license": "cc-by-4.0"}, False, None),
        ({}, True, "the licence of maker/photos is unknown"),
        ({"license": "cc-by-nc-4.0"}, True, "maker/photos is for non-commercial use (cc-by-nc-4.0)"),
        ({"license": "other", "license_name": "imagenet"}, True, "maker/photos has terms of its own (imagenet)"),
        ({"license": "mit", "gated": True}, True, "maker/photos is gated"),
    ],
)
def test_who_may_see_it(hub, caplog, source, is_private, reason):
    caplog.set_level(logging.WARNING, "hf_lgm")
    images = make_set(config={**OPEN, "source": {"dataset": "maker/photos", **source}})
    images.push_to_hub("user/set")
    assert ("user/set" in hub.private) == is_private
    if reason:
        assert f"user/set is private, because {reason}: private=False makes a new one public" in caplog.text
        hub.private.clear()  # its owner has made it public
        with pytest.raises(HubError, match="is public, and this should be private, because .*: add private=False"):
            images.push_to_hub("user/set")
    images.push_to_hub("user/set", private=False)
    with pytest.raises(HubError, match="is public: make it private in its settings, or name another repository"):
        hub.private.clear()
        images.push_to_hub("user/set", private=True)


@pytest.mark.parametrize(
    ("repo_id", "token", "message"),
    [
        ("a--b/c", TOKEN, "can't be the name of a repository"),
        ("set", TOKEN, "Expected a repository 'user/name', found 'set'."),
        ("user/set", "", "There is no token to write to 'user/set' with: run `hf auth login`."),
        ("user/set", READ_TOKEN, "make one that may write at"),
        ("user/set", "hf_gone", "Could not create 'user/set': the token was refused"),
    ],
)
def test_what_can_not_be_written_to(hub, monkeypatch, repo_id, token, message):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(HubError, match=message):
        make_set(config=OPEN).push_to_hub(repo_id)
    assert not hub.repos


def test_real_images_stay_here_and_are_rebuilt_from_their_source(hub, backbone, train_images, splits, tmp_path):
    chosen = select_baseline("centroid", backbone, train_images, 2, config=OPEN)
    chosen.push_to_hub("user/set")
    published = DistilledSet.from_pretrained("user/set")
    assert published.dataset.column_names == ["label", "source_index"] and "preview.png" not in hub.files(*SET)
    assert b"![" not in hub.files(*SET)["README.md"]
    with pytest.raises(ValueError, match="holds rows of real images without the images"):
        evaluate_probe(backbone, published, splits["test"])
    rebuilt = with_source_images(published, train_images)
    assert torch.equal(rebuilt.pixels(), chosen.pixels()) and rebuilt.class_names == chosen.class_names
    with pytest.raises(ValueError, match="the data has other images there: give the same revision"):
        with_source_images(published, LabelledImages.from_dataset(splits["test"]))
    with pytest.raises(ValueError, match="This set has row .* the data has 1 rows"):
        with_source_images(published, LabelledImages.from_dataset(splits["train"].select([0])))
    chosen.push_to_hub("user/set", include_source_images=True)
    assert torch.equal(DistilledSet.from_pretrained("user/set").pixels(), chosen.pixels())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files.pop("data/train-00000-of-00001.parquet"), "is not a distilled set: it has no data/train"),
        (lambda files: files.update({"lgm_config.json": b"[]"}), "lgm_config.json holds a list where a dict was"),
    ],
)
def test_a_repository_that_is_no_set(hub, tmp_path, change, message):
    make_set(config=OPEN).push_to_hub("user/set")
    change(hub.files(*SET))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        DistilledSet.from_pretrained("user/set")


def test_a_set_that_can_not_be_had(hub):
    with pytest.raises(HubError, match="The set 'user/set' can't be fetched: it does not exist, or the token can't"):
        DistilledSet.from_pretrained("user/set")
    make_set(config=OPEN).push_to_hub("user/set")
    with pytest.raises(HubError, match="at revision 'v9' can't be fetched: it has no such revision"):
        DistilledSet.from_pretrained("user/set", revision="v9")
    hub.gated = {"user/set"}
    with pytest.raises(
        HubError, match="it is gated: ask for access at https://huggingface.co/datasets/user/set, then"
    ):
        DistilledSet.from_pretrained("user/set")


def make_distiller(backbone, splits, tmp_path, license="cc-by-4.0", **settings):
    source = {"dataset": "maker/photos", "license": license}
    args = LGMConfig(str(tmp_path / "out"), max_steps=3, views_per_step=2, disable_tqdm=True, **settings)
    provenance = {"source": source, "command": "a command"}
    return LGMDistiller(backbone, args, splits["train"], splits["test"], provenance=provenance)


def test_a_distiller_publishes_at_the_end_of_training(hub, backbone, splits, tmp_path):
    distiller = make_distiller(
        backbone, splits, tmp_path, push_to_hub=True, hub_dataset_id="user/set", hub_token=TOKEN
    )
    distiller.train()
    assert len(hub.repos[SET].commits) == 2
    assert DistilledSet.from_pretrained("user/set").fingerprint == distiller.distilled_set().fingerprint
    metrics = distiller.evaluate()
    distiller.push_to_hub(tag="v1.0")  # now with results
    rows = json.loads(hub.files(*SET)["results.json"])
    assert rows[0]["mean"] == pytest.approx(metrics["eval_accuracy"])
    assert hub.repos[SET].tags == {"v1.0": hub.repos[SET].head}
    assert all(TOKEN.encode() not in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())


def test_what_is_in_the_way_is_said_before_training(hub, backbone, splits, tmp_path, monkeypatch):
    distiller = make_distiller(backbone, splits, tmp_path, push_to_hub=True, hub_dataset_id="user/set")
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    with pytest.raises(HubError, match="the token may not do this"):
        distiller.train()
    assert distiller.state.global_step == 0
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    refused = make_distiller(backbone, splits, tmp_path, license="llama3", push_to_hub=True, hub_dataset_id="user/set")
    with pytest.raises(HubError, match='"license" must be one of'):
        refused.train()
    assert refused.state.global_step == 0 and not hub.repos
    with pytest.raises(ValueError, match="push_to_hub needs to know where to: set hub_dataset_id to 'user/name'"):
        make_distiller(backbone, splits, tmp_path, push_to_hub=True)


def test_a_push_that_fails_leaves_the_images_on_disk(hub, backbone, splits, tmp_path):
    distiller = make_distiller(backbone, splits, tmp_path)
    distiller.train()
    hub.faults = [Fault(STAGES["commit"], 403)]
    with pytest.raises(HubError, match=r"DistilledSet.from_pretrained\('.*out'\).push_to_hub\('user/set'\), or in"):
        distiller.push_to_hub("user/set")
    assert DistilledSet.from_pretrained(tmp_path / "out").fingerprint == distiller.distilled_set().fingerprint


def test_real_images_that_stay_beside_learned_ones_stay_here_too(hub, backbone, splits, train_images, tmp_path):
    """From the run to the Hub and back: no pixel of a real image is in any file that leaves."""
    args = LGMConfig(
        str(tmp_path / "out"), images_per_class=2, real_images_per_class=1, max_steps=2, hub_dataset_id="user/set",
        push_to_hub=True, disable_tqdm=True,
    )  # fmt: skip
    distiller = LGMDistiller(backbone, args, splits["train"], provenance=OPEN)
    distiller.train()
    whole, published = DistilledSet.from_pretrained(args.output_dir), DistilledSet.from_pretrained("user/set")
    assert whole.has_images and whole.fingerprint == distiller.distilled_set().fingerprint
    assert published.missing_rows.tolist() == [0, 2, 4] and "user/set" not in hub.private
    assert set(hub.files(*SET)) == {*PUBLISHED_FILES, ".gitattributes"}
    published.save_pretrained(tmp_path / "again")  # whose preview has only what is published to show
    assert (tmp_path / "again" / "preview.png").read_bytes() == hub.files(*SET)["preview.png"]
    with pytest.raises(ValueError, match="holds rows of real images without the images"):
        evaluate_probe(backbone, published, splits["test"])
    rebuilt = with_source_images(published, train_images)
    assert rebuilt.fingerprint == whole.fingerprint and rebuilt.dataset.features == whole.dataset.features
    assert rebuilt.dataset["source_index"][:] == whole.dataset["source_index"][:]
    with pytest.raises(ValueError, match="the data has other images there: give the same revision"):
        with_source_images(published, LabelledImages.from_dataset(splits["test"]))
    whole.push_to_hub("user/set", include_source_images=True)
    assert DistilledSet.from_pretrained("user/set").fingerprint == whole.fingerprint
    published.push_to_hub("user/set")  # of what is not here, nothing is asked
    assert DistilledSet.from_pretrained("user/set").missing_rows.tolist() == [0, 2, 4]


def test_a_set_of_the_hub_that_refers_to_this_machine(hub, tmp_path, monkeypatch):
    make_set(3, config=OPEN).push_to_hub("user/set")
    (tmp_path / PRIVATE).mkdir()
    (tmp_path / PRIVATE / "photo.png").write_bytes(png())
    elsewhere = {"bytes": None, "path": str(tmp_path / PRIVATE / "photo.png")}
    folder = write_rows(tmp_path / "hostile", {"image": [*stored(2), elsewhere]})
    hub.files(*SET)[DATA_FILE] = (folder / DATA_FILE).read_bytes()
    with watch() as seen, pytest.raises(ValueError, match="row 2, image: expected the image itself"):
        DistilledSet.from_pretrained("user/set")
    assert not [event for event in seen if event[0] == "open"]


@pytest.mark.parametrize("file", [DATA_FILE, "lgm_config.json", "results.json"])
def test_what_is_too_large_is_not_downloaded(hub, monkeypatch, file):
    make_set(3, config=OPEN).push_to_hub("user/set")
    monkeypatch.setitem(MAX_BYTES, file, 1)
    before = len(hub.requests)
    with pytest.raises(ValueError, match=f"{file} of 'user/set' has [0-9,]+ bytes: expected at most 1"):
        DistilledSet.from_pretrained("user/set")
    assert not [request for request in hub.requests[before:] if "/resolve/" in request]


def test_a_probe_of_the_hub(hub, tmp_path, monkeypatch):
    """Its backbone is a model of the Hub or of the demo, not a folder of that name here."""
    monkeypatch.setattr("hf_lgm.evaluation.probe_model.own_classifier", lambda *of: None)
    probe = ProbeModel.train_on("demo-vit", make_set(3, size=32))
    probe.push_to_hub("user/probe", private=False)
    found = ProbeModel.from_pretrained("user/probe")
    assert torch.equal(found.weight, probe.weight) and found.backbone.name == "demo-vit"
    files = hub.files("models", "user/probe")
    assert set(files) == {".gitattributes", "README.md", "head.safetensors", "lgm_config.json", "results.json"}
    files["lgm_config.json"] = files["lgm_config.json"].replace(b'"source": "demo-vit"', b'"source": "tests"')
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "another cache"))
    with pytest.raises(ValueError, match="names as its backbone 'tests', which is no model of the Hub"):
        ProbeModel.from_pretrained("user/probe")
