"""Every image has the class that its own file, or its own split, names."""

import logging

import pandas as pd
import pytest
import torch
from conftest import make_dataset
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, IterableDatasetDict, Value, load_dataset
from PIL import Image as PILImage

from hf_lgm import LabelledImages, StreamEncoder, load_images
from hf_lgm.data.label_names import _local

COLOURS = {"cat": (255, 0, 0), "dog": (0, 255, 0), "owl": (0, 0, 255)}
BY_NAME = {colour: name for name, colour in COLOURS.items()}
CATS_FIRST, OWLS_FIRST = ["cat", "dog", "owl"], ["owl", "dog", "cat"]


def part(names, shown=("cat", "dog", "owl") * 2, feature=None) -> Dataset:
    """Images whose colour says what they are, labelled by position among `names`, or as `feature` has it."""
    labels = (
        list(shown) if feature is not None and feature.dtype == "string" else [names.index(name) for name in shown]
    )
    features = Features({"image": Image(), "label": feature or ClassLabel(names=names)})
    pictures = [PILImage.new("RGB", (20, 20), COLOURS[name]) for name in shown]
    return Dataset.from_dict({"image": pictures, "label": labels}, features=features)


def write(folder, files, card=None, kind="parquet"):
    folder.mkdir(exist_ok=True)
    for name, dataset in files.items():
        if kind == "parquet":
            dataset.to_parquet(folder / f"{name}.parquet")
        else:
            dataset.save_to_disk(folder / "made")
            next((folder / "made").glob("*.arrow")).rename(folder / f"{name}.arrow")
            for left in (folder / "made").iterdir():
                left.unlink()
            (folder / "made").rmdir()
    if card is not None:
        listed = "\n".join(f"          '{number}': {name}" for number, name in enumerate(card))
        label = f"  - name: label\n    dtype:\n      class_label:\n        names:\n{listed}"
        (folder / "README.md").write_text(
            f"---\ndataset_info:\n  features:\n  - name: image\n    dtype: image\n{label}\n---\n"
        )
    return str(folder)


def shown(images: LabelledImages, indices) -> list[str]:
    return [BY_NAME[images.image(index).getpixel((0, 0))] for index in indices]


def assert_named_rightly(images: LabelledImages) -> None:
    images = images.with_images()
    assert len(images) and shown(images, range(len(images))) == [images.class_names[label] for label in images.labels]


@pytest.fixture(params=["disk", "stream"])
def read(request, backbone):
    encoder = StreamEncoder([backbone], kept_per_class=9) if request.param == "stream" else None

    def load(folder, **options):
        train, evaluation = load_images(folder, stream_encoder=encoder, **options)
        assert_named_rightly(train)
        if encoder is None:
            assert_named_rightly(evaluation)
        return train, evaluation

    return load


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_splits_that_number_their_classes_otherwise(tmp_path, read, kind, caplog):
    files = {"train": part(CATS_FIRST), "test": part(OWLS_FIRST)}
    train, evaluation = read(write(tmp_path / "data", files, kind=kind))
    assert train.class_names == evaluation.class_names == CATS_FIRST
    assert evaluation.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert f"test.{kind}: column 'label' numbers its classes otherwise; mapped by name" in caplog.text


def test_shards_of_one_split_that_number_their_classes_otherwise(tmp_path, read):
    files = {"train-00000-of-00002": part(CATS_FIRST), "train-00001-of-00002": part(OWLS_FIRST)}
    train, evaluation = read(write(tmp_path / "data", files | {"test": part(["dog", "cat", "owl"])}))
    assert train.labels.tolist() == [0, 1, 2] * 4 and evaluation.labels.tolist() == [0, 1, 2] * 2


def test_what_datasets_has_prepared_with_wrong_labels_is_not_used(tmp_path, read):
    folder = write(tmp_path / "data", {"train": part(CATS_FIRST), "test": part(OWLS_FIRST)})
    assert load_dataset(folder)["test"]["label"] == [2, 1, 0, 2, 1, 0]
    assert read(folder)[1].labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert read(folder)[1].labels.tolist() == [0, 1, 2, 0, 1, 2]  # again, from the cache


def test_what_agrees_stays_where_datasets_has_prepared_it(tmp_path):
    folder = write(tmp_path / "data", {"train": part(CATS_FIRST), "test": part(CATS_FIRST)})
    prepared = load_dataset(folder)["train"]
    images, _ = load_images(folder)
    assert images.source.cache_files == prepared.cache_files


def test_a_card_that_numbers_the_classes_otherwise(tmp_path, read):
    folder = write(tmp_path / "data", {"train": part(CATS_FIRST), "test": part(CATS_FIRST)}, card=OWLS_FIRST)
    assert read(folder)[0].class_names == OWLS_FIRST


def test_a_card_may_name_the_integers_of_files_that_have_no_names(tmp_path, read):
    files = {name: part(CATS_FIRST, feature=Value("int64")) for name in ("train", "test")}
    assert read(write(tmp_path / "data", files, card=CATS_FIRST))[0].class_names == CATS_FIRST


def test_strings_beside_class_labels_are_mapped(tmp_path, read):
    files = {"train": part(OWLS_FIRST), "test": part(CATS_FIRST, feature=Value("string"))}
    assert read(write(tmp_path / "data", files))[1].labels.tolist() == [2, 1, 0, 2, 1, 0]
    files = {"train": part(CATS_FIRST, feature=Value("string")), "test": part(OWLS_FIRST)}
    assert read(write(tmp_path / "other", files))[1].labels.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("train", "test", "card", "message"),
    [
        (part(CATS_FIRST), part(["cat", "dog", "cow"], ["cat", "dog"]), None,
         r"test.parquet: column 'label' has other class names \(the difference: cow, owl\); .*says cat, dog, owl"),
        (part(["cat", "dog"], ["cat", "dog"]), part(CATS_FIRST), None, r"test.parquet: .*\(the difference: owl\)"),
        (part(CATS_FIRST), part(["owl", "cat"], ["owl", "cat"]), None, r"test.parquet: .*\(the difference: dog\)"),
        (part(CATS_FIRST), part(CATS_FIRST, feature=Value("int64")), None, "test.parquet: .*integers without names"),
        (part(CATS_FIRST, feature=Value("int64")), part(CATS_FIRST), None, r"test.parquet: .*class names \(cat, dog"),
        (part(CATS_FIRST), part(CATS_FIRST), ["a", "b", "c"], "train.parquet: .*: a, b, c, cat, dog, owl.*card"),
        (part(CATS_FIRST), part(["cat"], ["cat"] * 2, Value("string")).map(lambda row: {"label": "1"}), None,
         "test.parquet: .*not among them: 1; "),
    ],
)  # fmt: skip
def test_classes_that_can_not_be_mapped_are_refused(tmp_path, read, train, test, card, message):
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path / "data", {"train": train, "test": test}, card))


def in_python(train, test, **options):
    images, evaluation = load_images(DatasetDict(train=train, test=test), **options)
    assert_named_rightly(images)
    assert_named_rightly(evaluation)
    return images, evaluation


@pytest.mark.parametrize("saved", [False, True])
def test_splits_given_or_saved_are_compared_too(tmp_path, saved):
    splits = DatasetDict(train=part(CATS_FIRST), test=part(OWLS_FIRST))
    splits.save_to_disk(tmp_path / "saved")
    train, evaluation = load_images(str(tmp_path / "saved")) if saved else load_images(splits)
    assert_named_rightly(evaluation)
    assert evaluation.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_a_split_without_an_image_of_one_class(caplog):
    _, evaluation = in_python(
        part(CATS_FIRST, feature=Value("string")), part(CATS_FIRST, ["dog", "owl"], Value("string"))
    )
    assert evaluation.labels.tolist() == [1, 2] and evaluation.class_names == CATS_FIRST
    assert "1 classes have no image to evaluate on: cat" in caplog.text


def test_a_streamed_split_without_an_image_of_one_class(backbone):
    splits = {"train": part(CATS_FIRST, feature=Value("string")), "test": part([], ["dog", "owl"], Value("string"))}
    streams = IterableDatasetDict({name: split.to_iterable_dataset() for name, split in splits.items()})
    assert load_images(streams, stream_encoder=StreamEncoder([backbone]))[1].labels.tolist() == [1, 2]


def test_a_split_that_declares_fewer_classes_is_refused():
    with pytest.raises(ValueError, match="The images to evaluate on have other classes.*missing dog; additional none"):
        in_python(part(CATS_FIRST), part(["owl", "cat"], ["owl", "cat"]))


def test_numbers_that_are_missing_in_one_split_do_not_shift():
    labelled = [LabelledImages.from_dataset(make_dataset(2).cast_column("label", Value("int64")))]
    later = labelled[0].source.add_column("label", [5, 5, 7, 7, 9, 9])
    whole, some = LabelledImages.from_dataset(later), LabelledImages.from_dataset(later.select([2, 3, 4, 5]))
    assert some.aligned(whole.class_names).labels.tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize("classes", [["owl", "cat"], [2, 0]])
def test_chosen_classes_are_those_of_the_train_split(classes):
    train, evaluation = in_python(part(CATS_FIRST), part(["dog", "cat", "owl"]), classes=classes)
    assert train.class_names == evaluation.class_names == ["owl", "cat"]
    assert evaluation.labels.tolist() == [1, 0, 1, 0]


def test_a_class_label_out_of_range_is_refused():
    dataset = part(CATS_FIRST).remove_columns("label").add_column("label", [0, 1, 2, -1, 3, 0])
    dataset._info.features["label"] = ClassLabel(names=CATS_FIRST)
    with pytest.raises(ValueError, match="The label in row 4 is 3: expected one of the classes 0 to 2. Correct it"):
        LabelledImages.from_dataset(dataset)


def table(folder, labels, **columns) -> str:
    """As pandas writes it."""
    folder.mkdir()
    pictures = part(CATS_FIRST, ["cat"] * len(labels)).cast_column("image", Image(decode=False))["image"]
    data = {"image": [picture["bytes"] for picture in pictures], "label": labels, **columns}
    pd.DataFrame(data).to_parquet(folder / "train.parquet")
    return str(folder)


@pytest.mark.parametrize(
    ("labels", "expected", "names"),
    [
        ([0, 1, None, 1, 0], [0, 1, 1, 0], ["0", "1"]),  # float64 with NaN
        ([0.0, 10.0, 2.0, 2.0, 0.0, 10.0], [0, 2, 1, 1, 0, 2], ["0", "2", "10"]),
        ([-1.0, 1.0, 0.0, 0.0, 1.0], [1, 0, 0, 1], ["0", "1"]),
        ([True, False, True, False], [1, 0, 1, 0], ["False", "True"]),
        ([True, False, None, True, False], [1, 0, 1, 0], ["False", "True"]),
        (["b", "a", None, "", "a", "b"], [1, 0, 0, 1], ["a", "b"]),
        (["10", "9", "10", "9"], [0, 1, 0, 1], ["10", "9"]),
        ([2**62, 5, 2**62, 5], [1, 0, 1, 0], ["5", str(2**62)]),
    ],
)
def test_labels_as_tables_hold_them(tmp_path, backbone, labels, expected, names):
    folder = table(tmp_path / "table", labels)
    stored = LabelledImages.from_dataset(load_dataset(folder)["train"])
    streamed = StreamEncoder([backbone]).encode(load_dataset(folder, split="train", streaming=True))
    for images in (stored, streamed):
        assert (images.labels.tolist(), images.class_names) == (expected, names)


def test_decimals_are_no_classes(tmp_path, backbone):
    folder = table(tmp_path / "table", [None, 1.0, 0.5, 1.0])
    with pytest.raises(ValueError, match=r"The label in row 2 is 0\.5: expected a whole number"):
        load_images(folder)
    with pytest.raises(ValueError, match=r"The label in row 2 is 0\.5: expected a whole number"):
        load_images(folder, stream_encoder=StreamEncoder([backbone]))


def test_a_column_of_decimals_is_not_taken_for_labels_beside_one_of_strings(tmp_path):
    folder = table(tmp_path / "table", ["a", "b"] * 3, target=[0.1, 0.2] * 3)
    assert LabelledImages.from_dataset(load_dataset(folder)["train"]).class_names == ["a", "b"]


def test_the_only_image_of_a_class_is_kept_to_distil(caplog):
    with caplog.at_level(logging.WARNING):
        train, evaluation = load_images(DatasetDict(train=part(CATS_FIRST, ["cat", "dog"] * 5 + ["owl"])))
    assert torch.bincount(train.labels).tolist() == [4, 4, 1]
    assert torch.bincount(evaluation.labels, minlength=3).tolist() == [1, 1, 0]
    assert "1 classes have one image, which is not held out: owl" in caplog.text


def test_one_image_of_every_class_can_not_be_divided():
    with pytest.raises(ValueError, match="Every class has one image, and none is left to evaluate on"):
        load_images(DatasetDict(train=part(CATS_FIRST, CATS_FIRST)))


def test_a_card_that_names_integers_leaves_them_where_datasets_has_prepared_them(tmp_path):
    files = {name: part(CATS_FIRST, feature=Value("int64")) for name in ("train", "test")}
    folder = write(tmp_path / "data", files, card=CATS_FIRST)
    prepared = load_dataset(folder)["train"]
    assert load_images(folder)[0].source.cache_files == prepared.cache_files


def test_files_of_the_hub_are_compared_where_its_cache_has_them(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("hf_lgm.data.label_names.try_to_load_from_cache", lambda *a, **k: asked.append((a, k)) or "/x")
    assert str(_local("hf://datasets/user/name@refs%2Fpr%2F1/data/train-0.parquet")) == "/x"
    assert asked == [(("user/name", "data/train-0.parquet"), {"revision": "refs/pr/1", "repo_type": "dataset"})]
    assert _local("hf://buckets/user/name/train-0.parquet") is None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("kind", "of", "classes"),
    [("string", str, ["cow", "cat"]), ("int64", {"cat": 3, "dog": 4, "cow": 7}.get, ["7", "3"])],
)
def test_chosen_classes_that_a_split_without_declared_names_lacks(backbone, kind, of, classes, stream, caplog):
    """They are names, also where they look like numbers, and what is absent is a warning as without a choice."""

    def split(shown):
        features = Features({"image": Image(), "label": Value(kind)})
        pictures = [PILImage.new("RGB", (16, 16)) for _ in shown]
        return Dataset.from_dict({"image": pictures, "label": [of(name) for name in shown]}, features=features)

    splits = DatasetDict(train=split(["cat", "dog", "cow"] * 2), test=split(["dog", "cat", "cat"]))
    if stream:
        splits = IterableDatasetDict({name: of_name.to_iterable_dataset() for name, of_name in splits.items()})
    encoder = StreamEncoder([backbone]) if stream else None
    train, test = load_images(splits, classes=classes, stream_encoder=encoder)
    assert train.class_names == test.class_names == [str(of(name)) for name in ("cow", "cat")]
    assert (train.labels.tolist(), test.labels.tolist()) == ([1, 0, 1, 0], [1, 1])
    assert f"1 classes have no image to evaluate on: {of('cow')}" in caplog.text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("first", "second"),
    [(["cat", "dog", "owl"], [0, 1, 2]), ([0, 1, 2], ["cat", "dog", "owl"]), ([True, False, True], [0, 1, 2])],
    ids=str,
)
def test_shards_whose_labels_are_of_different_kinds_are_refused(tmp_path, backbone, first, second, stream):
    """Names and numbers would be six classes, and a truth value would be made of 2."""
    table(tmp_path / "a", first)
    table(tmp_path / "b", second)
    folder = tmp_path / "both"
    folder.mkdir()
    for number, name in enumerate("ab"):
        (tmp_path / name / "train.parquet").rename(folder / f"train-{number:05d}-of-00002.parquet")
    encoder = StreamEncoder([backbone]) if stream else None
    with pytest.raises(ValueError, match="column 'label' has values of type .* says .* Write all files"):
        load_images(str(folder), stream_encoder=encoder)
