"""Plain datasets taken as sets."""

import pytest
import torch
from conftest import make_dataset
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset
from datasets import Image as DatasetImage
from PIL import Image
from sets import make_set

from hf_lgm import DistilledSet

PICTURE = Image.new("RGB", (4, 4), "red")


def rows(images, labels, kind):
    features = Features({"image": DatasetImage(), "label": kind})
    return Dataset.from_dict({"image": images, "label": labels}, features=features)


@pytest.mark.parametrize("source_index", [None, range(6), [0, None, 8, None, 16, None]])
def test_what_load_dataset_gives_for_a_set(tmp_path, source_index):
    soft = torch.softmax(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    published = make_set(source_index=source_index, soft_labels=soft).to_publish()
    published.save_pretrained(tmp_path)
    loaded = load_dataset(str(tmp_path))
    for form in (loaded, loaded["train"], loaded["train"].with_format("torch"), tmp_path, str(tmp_path), published):
        found = DistilledSet.wrap(form)
        assert found.dataset.column_names == published.dataset.column_names
        assert found.dataset.features == published.dataset.features
        assert found.missing_rows.tolist() == published.missing_rows.tolist()
        assert torch.equal(found.targets_as(found.class_names), published.targets_as(published.class_names))
        if published.has_images:
            assert torch.equal(found.pixels(), published.pixels())
    assert DistilledSet.wrap(published) is published


def test_other_columns_and_labels():
    dataset = make_dataset(2).rename_columns({"image": "picture", "label": "kind"})
    dataset = dataset.add_column("note", ["x"] * 6)
    found = DistilledSet.wrap(dataset)
    assert found.dataset.column_names == ["image", "label"]
    assert found.class_names == ["class 0", "class 1", "class 2"] and found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    named = DistilledSet.wrap(rows([PICTURE] * 2, ["b", "a"], Value("string")))
    assert (named.class_names, named.labels.tolist()) == (["a", "b"], [1, 0])


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        (3, TypeError, "Expected a DistilledSet, its folder or Hub id, or a datasets.Dataset .* found int"),
        (
            DatasetDict(train=make_dataset(1), test=make_dataset(1)), ValueError,
            r"one split, found train, test: choose one, such as dataset\['test'\]",
        ),
        (
            rows([PICTURE, PICTURE.resize((6, 5))], [0, 1], ClassLabel(names=["a", "b"])), ValueError,
            "have one size, found 4 x 4, 6 x 5: resize them, or let select_baseline choose",
        ),
        (rows([PICTURE] * 2, [0, -1], ClassLabel(names=["a", "b"])), ValueError, "Row 1 of the set has no label"),
        (rows([PICTURE, None], [0, 1], ClassLabel(names=["a", "b"])), ValueError, "Row 1 of the set has no image"),
        (make_dataset(1).remove_columns("image"), ValueError, "image_column_name"),
    ],
)  # fmt: skip
def test_what_is_no_set(dataset, error, message):
    with pytest.raises(error, match=message):
        DistilledSet.wrap(dataset)
