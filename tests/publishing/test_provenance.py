"""Where images come from, under which licence, and how the command is told without what is private."""

import shutil

import pytest
from datasets import Dataset, load_dataset
from huggingface_hub import DatasetCard
from sets import make_set

from hf_lgm import LabelledImages
from hf_lgm.cli.arguments import DataArguments
from hf_lgm.cli.inputs import source_of
from hf_lgm.cli.parsing import published_command
from hf_lgm.hub import without_folders
from hf_lgm.publishing.card import render_set_card
from hf_lgm.publishing.licenses import check_license, on_card
from hf_lgm.publishing.provenance import (
    declared_license,
    describe_images,
    describe_source,
    reason_to_be_private,
)


@pytest.mark.parametrize(
    ("front_matter", "expected"),
    [
        ("license: mit", {"license": "mit", "license_declared_by": "source"}),
        ("license: [mit, apache-2.0]", {"license": "other", "license_declared_by": "source"}),
        ("tags: [x]", {}),
        ("{broken", {}),
    ],
)
def test_the_card_in_a_folder(tmp_path, front_matter, expected):
    (tmp_path / "README.md").write_text(f"---\n{front_matter}\n---\n# Photos\n")
    assert describe_source(str(tmp_path)) == expected


@pytest.mark.parametrize(
    ("declared", "metadata"),
    [
        ("mit", {"license": "mit"}),
        ("CC BY 4.0", {"license": "cc-by-4.0"}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("Our own terms, v2", {"license": "other", "license_name": "our-own-terms-v2"}),
        ("???", {"license": "other", "license_name": "unnamed"}),
    ],
)
def test_what_somebody_declares_is_on_a_card_as_the_hub_knows_it(declared, metadata):
    assert on_card(declared) == metadata
    card = DatasetCard(render_set_card({**make_set().config, **_described(declared)}, [], "user/set"))
    assert (card.data.license, card.data.get("license_name")) == (metadata["license"], metadata.get("license_name"))


def _described(license_):
    features = make_set().dataset.features._to_yaml_list()
    sizes = {"num_examples": 6, "num_classes": 3, "num_bytes": 1, "download_size": 1}
    return {"source": {"license": license_}, "dataset_info": {"features": features, **sizes}}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["CC BY 4.0"],
            "license='CC BY 4.0' is no identifier of the Hub's: use cc-by-4.0, or other with license_name",
        ),
        (["apache"], "use apache-2.0, or other with license_name and license_link"),
        (["GPL 3"], "use gpl-3.0, or other"),
        (["x"], "is no identifier of the Hub's: use other with license_name and license_link"),
        (["mit", "our terms"], "license_name belongs to license='other', found license='mit'."),
        (["mit", None, "https://terms"], "license_link belongs to license='other', found license='mit'."),
    ],
)
def test_licences_that_the_hub_would_refuse(given, message):
    with pytest.raises(ValueError) as caught:
        check_license(*given)
    assert message in str(caught.value)


def test_a_flag_goes_before_what_the_source_says(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    source = source_of(DataArguments(dataset=str(tmp_path), license="cc-by-4.0"), str(tmp_path))
    assert source["license"] == "cc-by-4.0" and "license_declared_by" not in source


def test_of_the_demo():
    assert describe_source("demo-digits") == {"license": "cc-by-4.0"}
    assert declared_license("demo-vit") == "apache-2.0" and declared_license(None) is None


def test_the_commit_that_a_dataset_was_loaded_from(tmp_path, dataset_folder):
    """As its copy lies in the cache of `datasets`."""
    train = load_dataset(dataset_folder, split="train")
    assert describe_images(LabelledImages.from_dataset(train)) == {"num_images": 24, "split": "train"}
    commit = "0123456789" * 4
    folder = tmp_path / "maker___photos" / "default" / "0.0.0" / commit
    folder.mkdir(parents=True)
    shutil.copy(train.cache_files[0]["filename"], folder / "photos-train.arrow")
    fetched = Dataset.from_file(str(folder / "photos-train.arrow"), info=train.info)
    described = describe_images(LabelledImages.from_dataset(fetched))
    assert (described["dataset"], described["revision"]) == ("maker/photos", commit)


@pytest.mark.parametrize(
    ("license_", "is_private"),
    [("mit", False), ("cc-by-4.0", False), ("cc-by-nc-sa-4.0", True), ("other", True), ("unknown", True)],
)
def test_reasons_to_be_private(license_, is_private):
    assert (reason_to_be_private({"dataset": "d", "license": license_}) is not None) == is_private


def test_a_command_tells_neither_folders_nor_tokens(tmp_path):
    flags = ["--model", str(tmp_path / "net"), f"--dataset={tmp_path}", "--hub_token", "hf_secret"]
    flags += ["--hub_token=hf_other", "--classes", "a b", "--output_dir", "outputs/run"]
    command = published_command("python scripts/distill.py", flags)
    assert str(tmp_path) not in command and "secret" not in command and "hf_other" not in command
    assert command.startswith("python scripts/distill.py --model net --dataset=") and "--classes 'a b'" in command


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--output_dir", "clients/secret/run"], "--output_dir run"),
        (["--output_dir=clients/secret/run"], "--output_dir=run"),
        (["--output-dir", "./clients/secret/run/"], "--output-dir run"),
        (["--output_dir", "~/secret/run"], "--output_dir run"),
        (["--output_dir=~/secret/run"], "--output_dir=run"),
        (["--output_dir", "../../secret/run"], "--output_dir run"),
        (["--output_dir", "."], "--output_dir here"),
        (["--resume_from_checkpoint", "secret/run/checkpoint-7"], "--resume_from_checkpoint checkpoint-7"),
        (["--config", "secret/a.yaml", "demo", "~/secret/b.yaml"], "--config a.yaml demo b.yaml"),
        (["--model", "~/secret/net@96", "user/net"], "--model net@96 user/net"),
        (["--dataset", "~/secret/photos"], "--dataset photos"),
        (["--dataset=./secret/photos"], "--dataset=photos"),
        (["--init", "../secret/set"], "--init set"),
        (["--dataset", "user/photos", "--model", "user/net@96"], "--dataset user/photos --model user/net@96"),
        (
            ["--license_link", "https://x.y/z", "--learning_rate", ".5"],
            "--license_link https://x.y/z --learning_rate .5",
        ),
        (["--classes", "a/b", "c"], "--classes a/b c"),
        (["--hub_token", "secret", "--output_dir", ""], "--hub_token '…' --output_dir ''"),
    ],
    ids=str,
)
def test_of_paths_that_are_not_there_yet_the_last_part_is_told(tmp_path, monkeypatch, flags, expected):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert published_command("hf-lgm distill", flags) == f"hf-lgm distill {expected}"


@pytest.mark.parametrize("name", ["~/secret/set", "./secret/set", "/secret/set", "secret/set", "../secret/set"])
def test_names_of_folders_in_settings_are_their_last_part(tmp_path, monkeypatch, name):
    (tmp_path / "secret" / "set").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / ("here" if name.startswith("..") else "."))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert without_folders(name) == "set"


@pytest.mark.parametrize(
    ("declared", "on_the_card"),
    [
        (None, "unknown"),
        ([], "unknown"),
        (["mit"], "mit"),
        (["mit", "cc-by-4.0"], "other"),
        ("CC BY 4.0", "cc-by-4.0"),
    ],
)
def test_whatever_a_source_declares_is_a_licence_on_the_card(declared, on_the_card):
    assert on_card(declared)["license"] == on_the_card
    config = {"source": {"dataset": "maker/photos", "license": declared}, "backbone": {"name": "maker/net"}}
    reason = reason_to_be_private(config["source"])
    assert (reason is None) == (on_the_card in ("mit", "cc-by-4.0"))
