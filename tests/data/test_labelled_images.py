import logging

import pytest
import torch
from conftest import make_dataset
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as PILImage

from hf_lgm import LabelledImages, load_images

PICTURE = PILImage.new("RGB", (4, 4))


def dataset_of(labels, feature, **columns) -> Dataset:
    data = {
        "image": [PICTURE] * len(labels),
        "label": labels,
        **{name: values for name, (values, _) in columns.items()},
    }
    features = {"image": Image(), "label": feature, **{name: kind for name, (_, kind) in columns.items()}}
    return Dataset.from_dict(data, features=Features(features))


def test_columns_are_found_by_type():
    dataset = make_dataset().rename_columns({"image": "picture", "label": "kind"})
    images = LabelledImages.from_dataset(dataset)
    assert (images.image_column, images.num_classes, len(images)) == ("picture", 3, 24)


@pytest.mark.parametrize(
    ("labels", "feature", "expected", "names"),
    [
        (["b", "a", "b"], Value("string"), [1, 0, 1], ["a", "b"]),
        ([30, 7, 30], Value("int64"), [1, 0, 1], ["7", "30"]),  # in the order of the numbers
    ],
)
def test_named_columns_of_strings_and_integers_are_encoded(labels, feature, expected, names):
    images = LabelledImages.from_dataset(dataset_of(labels, feature), label_column_name="label")
    assert (images.labels.tolist(), images.class_names) == (expected, names)


def test_rows_without_label_are_left_out_and_counted(caplog):
    images = LabelledImages.from_dataset(dataset_of([0, -1, 1, None], ClassLabel(names=["a", "b"])))
    assert images.labels.tolist() == [0, 1] and "2 of 4 rows have no label" in caplog.text


@pytest.mark.parametrize(
    ("dataset", "arguments", "message"),
    [
        (
            dataset_of(["a"], Value("string")).rename_column("label", "kind"), {},
            r"Expected one column of type ClassLabel, found 0. Columns: image \(Image\), kind \(string\). "
            "Name one, as in label_column_name='kind'",
        ),
        (
            dataset_of([0], ClassLabel(names=["a"])), {"image_column_name": "img"},
            "image_column_name='img': there is no such column. Found: image",
        ),
        (
            dataset_of([0], ClassLabel(names=["a"]), other=([PICTURE], Image())), {},
            "Expected one column of type Image, found 2",
        ),
        (dataset_of([[0, 1]], List(Value("int64"))), {"label_column_name": "label"}, "expected one class per image"),
        (make_dataset(), {"image_column_name": "label"}, "'label' has type ClassLabel: expected Image, paths"),
        (make_dataset(), {"classes": ["class 0", "dog"]}, "'dog' is no class of this dataset. Found 3: class 0"),
        (make_dataset(), {"classes": ["class 0", "0"]}, "names a class twice"),
    ],
)  # fmt: skip
def test_what_can_not_be_understood(dataset, arguments, message):
    with pytest.raises(ValueError, match=message):
        LabelledImages.from_dataset(dataset, **arguments)


def test_splits_are_not_a_split(splits):
    with pytest.raises(TypeError, match=r"found DatasetDict; choose one of its splits, such as dataset\['test'\]"):
        LabelledImages.from_dataset(splits)


def test_formats_and_undecoded_images_do_not_matter(train_images):
    expected = train_images.image(5).tobytes()
    assert LabelledImages.from_dataset(make_dataset().with_format("torch")).image(5).tobytes() == expected
    undecoded = make_dataset().cast_column("image", Image(decode=False))
    assert LabelledImages.from_dataset(undecoded).image(5).tobytes() == expected


def test_classes_are_renumbered_in_the_order_given(train_images):
    chosen = train_images.with_classes(["class 2", 0])
    assert chosen.class_names == ["class 2", "class 0"] and torch.bincount(chosen.labels).tolist() == [8, 8]
    assert chosen.image(15).tobytes() == train_images.image(23).tobytes()
    assert chosen.labels[15] == 0


def test_balanced_sample(train_images):
    sample = train_images.balanced_sample(10, seed=0)
    assert torch.bincount(sample.labels).tolist() == [3, 3, 3]
    assert sample.fingerprint == train_images.balanced_sample(10, seed=0).fingerprint
    assert sample.fingerprint != train_images.balanced_sample(10, seed=1).fingerprint
    with pytest.raises(ValueError, match="2 samples are fewer than one for each of the 3 classes"):
        train_images.balanced_sample(2, seed=0)


def test_a_broken_image_is_named_by_its_row():
    broken = {"bytes": b"not a picture", "path": None}
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    images = LabelledImages.from_dataset(Dataset.from_dict({"image": [PICTURE, broken], "label": [0, 1]}, features))
    images.image(0)
    with pytest.raises(ValueError, match=r"The image in row 1 \(column 'image'\) can't be read"):
        images.image(1)


def test_folder_of_images(dataset_folder):
    train, evaluation = load_images(dataset_folder)
    assert (len(train), len(evaluation)) == (24, 24)
    assert train.class_names == ["class 0", "class 1", "class 2"]


def test_folder_of_parquet(tmp_path, splits):
    for name, split in splits.items():
        split.to_parquet(str(tmp_path / f"{name}-00000.parquet"))
    train, evaluation = load_images(str(tmp_path))
    assert train.class_names == ["class 0", "class 1", "class 2"] and len(evaluation) == 24


def test_without_a_second_split_a_fifth_is_held_out(splits, caplog):
    train, evaluation = load_images(DatasetDict(train=splits["train"]))
    assert torch.bincount(train.labels).tolist() == [6, 6, 6] and torch.bincount(evaluation.labels).tolist() == [
        2,
        2,
        2,
    ]
    kept, held_out = ({images.image(row).tobytes() for row in range(len(images))} for images in (train, evaluation))
    assert not kept & held_out
    assert "6 of 24 images are held out" in caplog.text


def test_evaluation_classes_in_another_order_are_aligned(splits):
    """The same labels in another numbering: class 2 is 0, class 0 is 1, class 1 is 2."""
    names = ClassLabel(names=["class 2", "class 0", "class 1"])
    renumbered = splits["test"].map(lambda row: {"label": (row["label"] + 1) % 3}).cast_column("label", names)
    train, evaluation = load_images(DatasetDict(train=splits["train"], test=renumbered))
    expected = LabelledImages.from_dataset(splits["test"])
    assert evaluation.class_names == train.class_names == expected.class_names
    for label in range(3):
        ours, theirs = ((images.labels == label).nonzero()[:, 0] for images in (evaluation, expected))
        assert {evaluation.image(r).tobytes() for r in ours} == {expected.image(r).tobytes() for r in theirs}


def with_names(dataset: Dataset, names: list[str]) -> Dataset:
    return dataset.cast_column("label", ClassLabel(names=names))


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda s: s, {"train_split": "training"}, "there is no split 'training'. Found: test, train"),
        (lambda s: s, {"eval_split": "validation"}, "eval_split: there is no split 'validation'"),
        (lambda s: s, {"classes": ["class 1"]}, "Expected at least two classes, found 1"),
        (
            lambda s: DatasetDict(s, test=with_names(s["test"], ["class 0", "class 1", "cat"])), {},
            "missing class 2; additional cat",
        ),
        (
            lambda s: DatasetDict({k: with_names(v, [f"class {i}" for i in range(5)]) for k, v in s.items()}), {},
            "2 of 5 classes have no image to distil: class 3, class 4. Name the classes to use as classes",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_any_work(splits, change, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_images(change(splits), **arguments)


def test_paths_and_ids_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="^dataset: there is no folder './absent'"):
        load_images("./absent")
    with pytest.raises(OSError, match="The dataset 'user/absent' can't be fetched.*built-in demo"):
        load_images("user/absent")
    with pytest.raises(ValueError, match="can't be loaded"):
        load_images(str(tmp_path))


def test_the_demos_digits():
    train, evaluation = load_images("demo-digits")
    assert (len(train), len(evaluation), train.num_classes) == (1347, 450, 10)
    assert train.image(0).size == (32, 32)
    logging.getLogger("datasets").info("same rows in every process: %s", train.fingerprint)
    assert load_images("demo-digits")[0].fingerprint == train.fingerprint


def test_groups_may_be_minus_one_or_missing():
    places = ([-1, 1, None, 1], Value("int64"))
    images = LabelledImages.from_dataset(
        dataset_of([0, 1, 0, 1], ClassLabel(names=["a", "b"]), place=places), group_column_name="place"
    )
    assert (images.groups.tolist(), images.group_names) == ([0, 1, -1, 1], ["-1", "1"]) and len(images) == 4


@pytest.mark.parametrize("kind", [Value("binary"), {"bytes": Value("binary"), "path": Value("string")}])
def test_encoded_pictures_are_found_where_nothing_else_can_be_one(kind):
    """As files that were not written by `datasets` hold them."""
    stored = make_dataset(per_class=2).cast_column("image", Image(decode=False))["image"]
    pictures = [picture if isinstance(kind, dict) else picture["bytes"] for picture in stored]
    columns = {"picture": pictures, "category": ["a", "b"] * 3}
    features = Features({"picture": kind, "category": Value("string")})
    images = LabelledImages.from_dataset(Dataset.from_dict(columns, features=features))
    assert images.image_column == "picture" and images.class_names == ["a", "b"]
    assert images.image(4).tobytes() == make_dataset(per_class=2)[4]["image"].tobytes()
