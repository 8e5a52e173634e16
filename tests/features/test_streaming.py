"""One pass over a stream gives what the same split on disk gives."""

import io
import tarfile

import pytest
import torch
from conftest import SIDE, make_dataset, make_vit
from datasets import ClassLabel, Dataset, Features, Image, IterableDatasetDict, Value, load_dataset
from PIL import Image as PILImage

from hf_lgm import (
    DistilledSet,
    FrozenBackbone,
    LabelledImages,
    LGMConfig,
    LGMDistiller,
    Preprocessing,
    ProbeProtocol,
    StreamEncoder,
    evaluate_probe,
    load_images,
)
from hf_lgm.evaluation.comparison import compare
from hf_lgm.features.extraction import FeatureExtractor
from hf_lgm.settings import ColumnOptions

LAYOUTS = ("folder", "parquet", "webdataset")


@pytest.fixture
def backbones(backbone):
    """Two of different side and geometry."""
    other = FrozenBackbone(make_vit(1), Preprocessing(image_size=24, resize_ratio=1.5), name="another")
    return [backbone, other]


@pytest.fixture
def encoder(backbones):
    return StreamEncoder(backbones, batch_size=4, shard_rows=10)


@pytest.fixture
def calls(backbone):
    """How many images the first backbone has encoded."""
    counted = []
    backbone.model.register_forward_pre_hook(lambda module, inputs: counted.append(len(inputs[0])))
    return counted


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """The same photographs, three times."""
    root = tmp_path_factory.mktemp("layouts")
    for split, seed in (("train", 0), ("test", 1)):
        dataset = make_dataset(seed=seed, side=20)
        write_folder(dataset, root / "folder" / split)
        (root / "parquet").mkdir(exist_ok=True)
        dataset.to_parquet(root / "parquet" / f"{split}.parquet")
        write_shards(dataset, root / "webdataset" / split)
    return root


def write_folder(dataset, folder):
    for row, example in enumerate(dataset):
        path = folder / dataset.features["label"].int2str(example["label"])
        path.mkdir(parents=True, exist_ok=True)
        example["image"].save(path / f"{row:04d}.png")


def write_shards(dataset, folder, rows_per_shard=7):
    folder.mkdir(parents=True)
    for start in range(0, len(dataset), rows_per_shard):
        with tarfile.open(folder / f"shard-{start:04d}.tar", "w") as tar:
            for row in range(start, min(start + rows_per_shard, len(dataset))):
                example, picture = dataset[row], io.BytesIO()
                example["image"].save(picture, "png")
                add(tar, f"{row:04d}.png", picture.getvalue())
                add(tar, f"{row:04d}.cls", str(example["label"]).encode())


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def features(images, backbone):
    return FeatureExtractor(batch_size=4, shard_rows=10).extract(backbone, images)


def test_one_set_of_photographs_has_the_same_features_however_it_is_stored_and_read(layouts, backbones, encoder):
    expected = [features(LabelledImages.from_dataset(make_dataset(side=20)), backbone) for backbone in backbones]
    for layout in LAYOUTS:
        stored = load_images(str(layouts / layout))
        streamed = load_images(str(layouts / layout), stream_encoder=encoder)
        assert [images.is_streamed for images in (stored[0], streamed[0])] == [False, True]
        for read in (stored, streamed):
            assert read[0].labels.tolist() == make_dataset()["label"]
            assert len(read[1]) == 24 and read[1].class_names == read[0].class_names
            for backbone, z in zip(backbones, expected, strict=True):
                assert torch.equal(features(read[0], backbone), z)


def test_a_second_call_reads_nothing(layouts, encoder, calls, monkeypatch):
    train, _ = load_images(str(layouts / "webdataset"), stream_encoder=encoder)
    calls.clear()
    monkeypatch.setattr("hf_lgm.features.streaming.StreamPass", None)
    again, _ = load_images(str(layouts / "webdataset"), stream_encoder=encoder)
    assert not calls and again.fingerprint == train.fingerprint
    assert again.with_images().image(0).tobytes() == train.with_images().image(0).tobytes()


def test_other_files_are_another_stream(tmp_path, encoder):
    write_shards(make_dataset(), tmp_path / "train")
    first, _ = load_images(str(tmp_path), stream_encoder=encoder)
    (tmp_path / "train" / "shard-0021.tar").unlink()
    second, _ = load_images(str(tmp_path), stream_encoder=encoder)
    assert first.fingerprint != second.fingerprint
    assert (len(first), len(second)) == (18, 16)  # a fifth is held out


def test_a_killed_pass_goes_on(layouts, backbone, calls):
    encoder = StreamEncoder([backbone], batch_size=4, shard_rows=10)

    def die(module, inputs):
        if sum(calls) > 14:
            raise KeyboardInterrupt

    hook = backbone.model.register_forward_pre_hook(die)
    with pytest.raises(KeyboardInterrupt):
        load_images(str(layouts / "parquet"), stream_encoder=encoder)
    hook.remove()
    calls.clear()
    train, _ = load_images(str(layouts / "parquet"), stream_encoder=encoder)
    assert sum(calls) == 14 + 24  # the first shard was kept; then the other split
    assert torch.equal(features(train, backbone), features(load_images(str(layouts / "parquet"))[0], backbone))


def test_threads_change_nothing(layouts, backbone):
    alone, together = (
        StreamEncoder([backbone], batch_size=5, num_threads=threads, shard_rows=10).encode(
            load_dataset(str(layouts / "webdataset"), split="train", streaming=True)
        )
        for threads in (1, 5)
    )
    assert torch.equal(features(alone, backbone), features(together, backbone))
    assert alone.fingerprint == together.fingerprint


def test_labels_are_understood_as_those_on_disk(encoder, backbones, caplog):
    labels = ["b", None, "c", "a", "b", "c"]
    data = {"image": make_dataset()["image"][:6], "kind": labels, "place": [1, 0, 1, 0, 0, 1]}
    columns = Features({"image": Image(), "kind": Value("string"), "place": ClassLabel(names=["land", "water"])})
    dataset = Dataset.from_dict(data, features=columns)
    options = {"label_column_name": "kind", "group_column_name": "place", "classes": ["c", "b"]}
    stored = LabelledImages.from_dataset(dataset, **options)
    streamed = encoder.encode(dataset.to_iterable_dataset(), ColumnOptions(**options))
    assert streamed.rows.tolist() == stored.rows.tolist() == [0, 2, 4, 5]
    assert streamed.labels.tolist() == stored.labels.tolist() == [1, 0, 1, 0]
    assert streamed.groups.tolist() == stored.groups.tolist() == [1, 1, 0, 1]
    assert (streamed.class_names, streamed.group_names) == (stored.class_names, stored.group_names)
    assert torch.equal(features(streamed, backbones[1]), features(stored, backbones[1]))
    assert "1 rows of the stream have no label" in caplog.text


def with_a_broken_image():
    images = [*make_dataset()["image"][:3], {"bytes": b"no image", "path": None}, make_dataset()["image"][0]]
    columns = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    return Dataset.from_dict({"image": images, "label": [0, 1, 0, 1, 1]}, features=columns)


def test_a_broken_image_is_named_by_its_row(encoder):
    with pytest.raises(
        ValueError, match=r"row 3 of the stream \(column 'image'\) can't be read.*skip_bad_images=True"
    ):
        encoder.encode(with_a_broken_image().to_iterable_dataset())


def test_broken_images_are_counted_where_that_is_asked_for(encoder, backbone, caplog):
    stored = LabelledImages.from_dataset(with_a_broken_image(), skip_bad_images=True)
    streamed = encoder.encode(with_a_broken_image().to_iterable_dataset(), ColumnOptions(skip_bad_images=True))
    assert stored.rows.tolist() == streamed.rows.tolist() == [0, 1, 2, 4]
    assert torch.equal(features(stored, backbone), features(streamed, backbone))
    assert "1 of 5 images can't be read and are left out: rows 3" in caplog.text
    assert caplog.text.count("1 of 5 images") == 2


def test_kept_images_are_those_of_the_rows_and_of_every_class(layouts, encoder):
    stored, streamed = (load_images(str(layouts / "folder"), stream_encoder=how)[0] for how in (None, encoder))
    at_hand = streamed.with_images()
    assert torch.bincount(at_hand.labels).tolist() == [5, 5, 5]
    for index, row in enumerate(at_hand.rows.tolist()):
        assert at_hand.image(index).tobytes() == stored.image(row).tobytes()
    gone = streamed.select((~streamed.source.has_image(streamed.rows)).nonzero()[:, 0])
    with pytest.raises(LookupError, match="A stream is read once, and row"):
        gone.image(0)


@pytest.mark.parametrize("classes", [["c", "a"], ["2", "0"], [2, 0]])
def test_classes_by_name_or_number(encoder, classes):
    columns = Features({"image": Image(), "label": Value("string")})
    data = {"image": make_dataset()["image"][:6], "label": ["a", "b", "c", "c", "b", "a"]}
    dataset = Dataset.from_dict(data, features=columns)
    stored = LabelledImages.from_dataset(dataset, classes=classes)
    streamed = encoder.encode(dataset.to_iterable_dataset(), ColumnOptions(classes=classes))
    assert streamed.class_names == stored.class_names == ["c", "a"]
    assert streamed.rows.tolist() == stored.rows.tolist() and streamed.labels.tolist() == stored.labels.tolist()


def test_formats_do_not_matter(encoder, backbone, splits):
    formatted = splits["train"].to_iterable_dataset().with_format("torch")
    streamed = encoder.encode(formatted, ColumnOptions(classes=["class 2", "class 1"]))
    assert torch.equal(
        features(streamed, backbone),
        features(LabelledImages.from_dataset(splits["train"], classes=["class 2", "class 1"]), backbone),
    )
    assert torch.bincount(streamed.with_images().labels).tolist() == [5, 5]


def test_a_damaged_index_is_read_again(layouts, encoder, tmp_path):
    train, _ = load_images(str(layouts / "folder"), stream_encoder=encoder)
    for index in (tmp_path / "features").glob("stream-*"):
        index.write_bytes(b"")
    again, _ = load_images(str(layouts / "folder"), stream_encoder=encoder)
    assert again.fingerprint == train.fingerprint
    assert all(index.stat().st_size for index in (tmp_path / "features").glob("stream-*"))


@pytest.mark.parametrize("stored", [None, {"bytes": None, "path": None}, {"bytes": None, "path": "/not/there.png"}])
def test_no_image_is_a_broken_image(encoder, stored):
    picture = io.BytesIO()
    make_dataset()[0]["image"].save(picture, "png")
    whole = {"bytes": picture.getvalue(), "path": None}
    pair = {"bytes": Value("binary"), "path": Value("string")}
    columns = Features({"image": pair, "label": ClassLabel(names=["a", "b"])})
    dataset = Dataset.from_dict({"image": [whole, stored, whole], "label": [0, 1, 1]}, features=columns)
    dataset = dataset.cast_column("image", Image()).to_iterable_dataset()
    assert encoder.encode(dataset, ColumnOptions(skip_bad_images=True)).rows.tolist() == [0, 2]
    with pytest.raises(ValueError, match="row 1 of the stream"):
        encoder.encode(dataset)


def test_an_empty_split_is_refused(encoder, splits):
    hidden = splits["test"].remove_columns("label").add_column("label", [-1] * 24)
    streams = IterableDatasetDict(train=splits["train"].to_iterable_dataset(), test=hidden.to_iterable_dataset())
    with pytest.raises(ValueError, match="no labelled image to evaluate on: give another split as eval_dataset"):
        load_images(streams, stream_encoder=encoder)


def test_processes_that_see_different_streams_are_stopped(encoder, monkeypatch, splits):
    monkeypatch.setattr("hf_lgm.features.streaming.gather_object", lambda own: [*own, "of another process"])
    with pytest.raises(ValueError, match="do not see the same stream"):
        encoder.encode(splits["train"].to_iterable_dataset())


@pytest.mark.parametrize("sampled", [True, False])
def test_the_table_of_a_stream(sampled, backbone, splits, tmp_path, caplog):
    """Where a sample leaves no image of a class, there is no row of random real images."""
    streams = IterableDatasetDict({name: split.to_iterable_dataset() for name, split in splits.items()})
    encoder = StreamEncoder([backbone], kept_per_class=2)
    train, evaluation = load_images(streams, stream_encoder=encoder, max_train_samples=3 if sampled else None)
    distilled = LGMDistiller(backbone, settings(tmp_path), train).distilled_set()
    protocol = ProbeProtocol(epochs=5, seeds=2)
    references = ["nearest class mean", "all real images"]
    comparison = compare(
        {"distilled": distilled}, [backbone], train, evaluation, references=references, protocol=protocol, cache=False
    )
    rows = [result.training_set for result in comparison.results]
    always = ["distilled", "nearest class mean"]  # with one image of each class none can be held out to choose by
    assert rows == (always if sampled else ["random real images", *always, "all real images"])
    assert ("no row of random real images" in caplog.text) == sampled


def test_a_sample_is_drawn_after_the_pass(layouts, encoder, backbone):
    sizes = {"max_train_samples": 6, "max_eval_samples": 3}
    folder = str(layouts / "folder")
    stored, streamed = (load_images(folder, stream_encoder=how, **sizes)[0] for how in (None, encoder))
    assert stored.rows.tolist() == streamed.rows.tolist() and len(stored) == 6
    # Encoded in other batches, so that sums may be taken in another order: equal, but not to the bit.
    torch.testing.assert_close(features(stored, backbone), features(streamed, backbone))


def test_without_a_second_split_a_part_of_the_stream_is_held_out(encoder):
    splits = IterableDatasetDict(train=make_dataset().to_iterable_dataset())
    train, evaluation = load_images(splits, stream_encoder=encoder)
    assert len(train) + len(evaluation) == 24 and not set(train.rows.tolist()) & set(evaluation.rows.tolist())


def test_what_is_wrong_with_the_classes_is_said_after_the_pass(encoder):
    columns = Features({"image": Image(), "label": ClassLabel(names=["a", "b", "c"])})
    dataset = Dataset.from_dict({"image": make_dataset()["image"][:2], "label": [0, 1]}, features=columns)
    with pytest.raises(ValueError, match="1 of 3 classes have no image to distil: c"):
        load_images(IterableDatasetDict(train=dataset.to_iterable_dataset()), stream_encoder=encoder)


def test_a_backbone_that_the_stream_did_not_see(backbones):
    images = StreamEncoder(backbones[:1]).encode(make_dataset().to_iterable_dataset())
    with pytest.raises(ValueError, match="was not encoded through another.*give all backbones to the StreamEncoder"):
        features(images, backbones[1])


def settings(folder, **changes):
    return LGMConfig(str(folder), max_steps=4, save_steps=2, views_per_step=2, disable_tqdm=True, **changes)


def test_distilling_a_stream_is_distilling_the_split(tmp_path, splits, backbone):
    sets = []
    for name, train, test in (
        ("stored", splits["train"], splits["test"]),
        ("streamed", splits["train"].to_iterable_dataset(), splits["test"].to_iterable_dataset()),
    ):
        distiller = LGMDistiller(backbone, settings(tmp_path / name, init="noise"), train, test)
        distiller.train()
        sets.append((distiller.distilled_set().pixels(), distiller.evaluate(ProbeProtocol(epochs=20, seeds=2))))
    assert torch.equal(sets[0][0], sets[1][0]) and sets[0][1] == sets[1][1]


def test_a_distillation_of_a_stream_goes_on(tmp_path, splits, backbone):
    def distiller():
        return LGMDistiller(backbone, settings(tmp_path), splits["train"].to_iterable_dataset())

    whole = distiller()
    whole.train()
    (tmp_path / "checkpoint-4").rename(tmp_path / "elsewhere")
    resumed = distiller()
    resumed.train("auto")
    assert torch.equal(resumed.distilled_set().pixels(), whole.distilled_set().pixels())


def test_what_needs_the_images_again_is_refused_before_the_pass(tmp_path, splits, backbone, calls):
    args = settings(tmp_path, real_features="online", objective="lgm")
    with pytest.raises(ValueError, match="real_features='online' needs the real images again, and a stream is read"):
        LGMDistiller(backbone, args, splits["train"].to_iterable_dataset())
    assert not calls


@pytest.mark.parametrize("init", ["centroid", "random"])
def test_images_begin_as_some_of_the_few_that_are_kept(tmp_path, splits, backbone, init):
    args = settings(tmp_path, init=init, images_per_class=2)
    distiller = LGMDistiller(backbone, args, splits["train"].to_iterable_dataset())
    distiller._begin(None)
    kept = distiller.train_images.with_images()
    assert torch.bincount(kept.labels).tolist() == [5, 5, 5]
    pixels = kept.centre_crops(SIDE, resize_ratio=1.0) / 255
    for number, start in enumerate(distiller.start_pixels):
        of_class = pixels[kept.labels == number // 2]
        assert any(torch.equal(start, image) for image in of_class)


def test_probes_are_scored_on_a_stream(splits, backbone):
    pixels = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    images = DistilledSet.from_pixels(pixels, [0, 1, 2], splits["test"].features["label"].names)
    protocol = ProbeProtocol(epochs=20, seeds=2)
    stored, streamed = (
        evaluate_probe(backbone, images, test, protocol=protocol)
        for test in (splits["test"], splits["test"].to_iterable_dataset())
    )
    assert stored.rows() == streamed.rows()


def test_pictures_of_another_mode_are_read_alike(encoder, backbone):
    pictures = [PILImage.new("L", (30, 20), 90), PILImage.new("RGBA", (20, 30), (9, 99, 199, 128))]
    columns = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    dataset = Dataset.from_dict({"image": pictures, "label": [0, 1]}, features=columns)
    streamed = encoder.encode(dataset.to_iterable_dataset())
    assert torch.equal(features(streamed, backbone), features(LabelledImages.from_dataset(dataset), backbone))


def test_a_former_name_is_understood(backbone, caplog):
    assert StreamEncoder([backbone], pictures_per_class=9).kept_per_class == 9
    assert "pictures_per_class is called kept_per_class now" in caplog.text
