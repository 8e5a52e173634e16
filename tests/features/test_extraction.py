import dataclasses
import multiprocessing
import os
import signal
import time

import pytest
import torch
from conftest import SIDE, make_dataset, make_vit

from hf_lgm import FrozenBackbone, LabelledImages, LGMConfig, Preprocessing
from hf_lgm.distillation.real_features import OnlineFeatures
from hf_lgm.features.cache import FeatureCache, check_finite
from hf_lgm.features.extraction import CentreCrops, FeatureExtractor, is_constant
from hf_lgm.processes import Process
from hf_lgm.whole_files import temporary_name

OWN = Process.this()


def extract_to(folder, backbone, images, batch_size=64):
    """In small shards."""
    return FeatureExtractor(batch_size=batch_size, cache_dir=folder, shard_rows=10).extract(backbone, images)


@pytest.fixture
def calls(backbone):
    """How many images the backbone has encoded."""
    counted = []
    backbone.model.register_forward_pre_hook(lambda module, inputs: counted.append(len(inputs[0])))
    backbone.dim  # noqa: B018  (its own forward pass)
    counted.clear()
    return counted


@pytest.fixture
def extract(backbone, train_images, tmp_path):
    return lambda **kwargs: extract_to(tmp_path, backbone, train_images, **kwargs)


def test_features_are_the_backbones_of_the_centre_crops(extract, backbone, train_images):
    crops = CentreCrops(train_images, (SIDE, 1.0, "bicubic"))
    expected = backbone(torch.stack([crops[row] for row in range(24)]) / 255)
    torch.testing.assert_close(extract(), expected)


def test_the_second_call_computes_nothing(extract, calls):
    first = extract(batch_size=4)
    assert sum(calls) == 24
    assert torch.equal(extract(batch_size=4), first)
    assert sum(calls) == 24


def test_what_is_missing_is_computed_and_no_more(extract, calls, tmp_path):
    first = extract()
    (shard,) = tmp_path.glob("*/shard-00001.safetensors")
    shard.unlink()
    assert torch.equal(extract(), first)
    assert sum(calls) == 24 + 10


def flip_last_byte(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("damage", [flip_last_byte, lambda data: data[:100], lambda data: b""])
def test_damage_is_found_and_repaired(extract, calls, tmp_path, damage, caplog):
    first = extract()
    (shard,) = tmp_path.glob("*/shard-00002.safetensors")
    intact = shard.read_bytes()
    shard.write_bytes(damage(intact))
    assert torch.equal(extract(), first)
    assert sum(calls) == 24 + 4 and shard.read_bytes() == intact
    assert "shard" in caplog.text and "again" in caplog.text


def test_everything_that_decides_features_is_in_the_key(extract, train_images, tmp_path):
    extract()

    def folders(backbone=None, images=train_images):
        extract_to(tmp_path, backbone or make_backbone(), images)
        return len(list(tmp_path.glob("*/key.json")))

    def make_backbone(seed=0, pooling="cls", **changes):
        preprocessing = Preprocessing(**{"image_size": SIDE, "resize_ratio": 1.0, **changes})
        return FrozenBackbone(make_vit(seed), preprocessing, pooling)

    assert folders(make_backbone(pooling="pooler")) == 1  # the same
    assert folders(make_backbone(pooling="mean")) == 2
    assert folders(make_backbone(seed=1)) == 3
    assert folders(make_backbone(resize_ratio=1.2)) == 4
    assert folders(make_backbone(mean=(0.5, 0.5, 0.5))) == 5
    assert folders(make_backbone().double()) == 6
    assert folders(make_backbone(), train_images.select(torch.arange(23))) == 7
    assert folders(make_backbone(), LabelledImages.from_dataset(make_dataset(seed=5))) == 8


def extract_slowly(folder):
    backbone = FrozenBackbone(make_vit(), Preprocessing(image_size=SIDE, resize_ratio=1.0))
    backbone.model.register_forward_pre_hook(lambda module, inputs: time.sleep(0.05))
    images = LabelledImages.from_dataset(make_dataset(per_class=100))
    extract_to(folder, backbone, images, batch_size=5)


def test_a_killed_extraction_goes_on(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=extract_slowly, args=(tmp_path,))
    process.start()
    while not list(tmp_path.glob("*/shard-*.safetensors")):
        assert process.is_alive()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/shard-*.safetensors")}
    extract_slowly(tmp_path)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/shard-*.safetensors")}
    assert len(after) > len(before) and before.items() <= after.items()


@pytest.fixture
def online(backbone, train_images, tmp_path):
    return online_features(backbone, train_images, tmp_path, views_per_step=3)


def online_features(backbone, train_images, folder, **settings):
    """Of batches of three classes × views."""
    args = LGMConfig(str(folder), seed=0, real_features="online", objective="lgm", **settings)
    return OnlineFeatures(backbone, train_images, args, FeatureExtractor())


def test_online_epochs_use_every_image_once_and_drop_the_last_batch(online):
    epoch = torch.cat([online.rows(step) for step in range(2)])
    assert len(set(epoch.tolist())) == 18  # 24 images, batches of 9
    assert set(online.rows(2).tolist()) != set(online.rows(0).tolist())


def test_online_batches_are_a_function_of_the_step(online, train_images):
    batches = [features for (features,) in online.batches(range(5))]
    assert batches[0].z.shape == (9, 24)
    assert torch.equal(batches[2].y, train_images.labels[online.rows(2)])
    ((again,),) = online.batches([4])
    assert torch.equal(again.z, batches[4].z) and torch.equal(again.y, batches[4].y)
    assert not torch.equal(batches[0].z, batches[3].z)


def test_online_batch_is_at_most_the_dataset(backbone, train_images, tmp_path):
    online = online_features(backbone, train_images, tmp_path, views_per_step=300)
    assert sorted(online.rows(0).tolist()) == list(range(24))


def test_features_that_are_not_finite_are_never_kept(extract, backbone, train_images, monkeypatch):
    """A precision may be too small for some images only, or for these weights."""
    monkeypatch.setattr(
        backbone, "encode", lambda crops, with_layers=False: torch.full((len(crops), backbone.dim), torch.inf)
    )
    with pytest.raises(FloatingPointError, match=r"in row 0 \(and of 9 of the next 9\) through tiny-dinov2 are"):
        extract()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_the_image_is_named_by_its_row_in_the_dataset(backbone, train_images, tmp_path, monkeypatch, bad):
    """Also where some rows are left out; and nothing of its shard is kept."""
    images, encode = train_images.select(torch.arange(5, 24)), backbone.encode

    def poisoned(crops, with_layers=False):
        z = encode(crops, with_layers)
        z[7, 3] = bad
        return z

    monkeypatch.setattr(backbone, "encode", poisoned)
    message = "image in row 12 through tiny-dinov2 are not finite in torch.float32: look at that image, or use another"
    with pytest.raises(FloatingPointError, match=message):
        FeatureExtractor(cache_dir=tmp_path).extract(backbone, images)
    assert list(tmp_path.rglob("*.safetensors")) == []
    with pytest.raises(FloatingPointError, match=r"use float32 weights \(bf16=False\), or another model"):
        check_finite(torch.tensor([[bad]], dtype=torch.bfloat16), [3], backbone.to(torch.bfloat16))


def test_views_that_give_no_numbers_are_found_online_too(online, backbone, monkeypatch):
    monkeypatch.setattr(backbone, "forward_with_layers", lambda views: torch.full((len(views), 24), torch.nan))
    with pytest.raises(FloatingPointError, match=f"features of the image in row {int(online.rows(3)[0])} "):
        next(online.batches([3]))


@pytest.mark.parametrize(("value", "how"), [(0.7, "same features:"), (0.0, "same features, all of them zero:")])
def test_constant_features_are_said_once(backbone, train_images, tmp_path, monkeypatch, caplog, value, how):
    monkeypatch.setattr(backbone, "encode", lambda crops, with_layers=False: torch.full((len(crops), 24), value))
    extractor = FeatureExtractor(cache_dir=tmp_path)
    for _ in range(2):
        extractor.extract(backbone, train_images)
    assert caplog.text.count(f"tiny-dinov2 gives all 24 images the {how} nothing can be learned through it") == 1


def test_features_that_differ_are_not_constant():
    z = torch.rand(3000, 5)
    assert not is_constant(z) and is_constant(z[:1].expand(3000, 5)) and is_constant(torch.zeros(2, 5))
    z[:] = z[0]
    z[-1, -1] *= 1.001
    assert not is_constant(z)


def test_shards_half_written_by_a_killed_process_are_cleared(backbone, tmp_path, monkeypatch):
    cache = FeatureCache(backbone, "images", tmp_path)
    own = cache.folder / temporary_name("shard-00000.safetensors")
    monkeypatch.setattr(Process, "this", lambda: dataclasses.replace(OWN, pid=2**22 + 1))
    gone = cache.folder / temporary_name("shard-00000.safetensors")
    monkeypatch.undo()
    own.write_bytes(b"half"), gone.write_bytes(b"half")
    FeatureCache(backbone, "images", tmp_path)
    assert own.exists() and not gone.exists()


def test_a_backbone_with_layers_is_asked_once_for_both(train_images, tmp_path):
    backbone = FrozenBackbone(make_vit(), Preprocessing(SIDE, resize_ratio=1.0), name="tiny-dinov2")
    layered, extractor, calls = backbone.with_layers(3), FeatureExtractor(cache_dir=tmp_path), []
    encode = layered.encode
    layered.encode = lambda crops, with_layers=False: calls.append(len(crops)) or encode(crops, with_layers)
    z = extractor.extract(layered, train_images)
    spaces = extractor.extract(layered, train_images, with_layers=True)
    assert sum(calls) == len(train_images) and spaces.shape[1] == sum(layered.widths)
    assert torch.equal(spaces[:, : layered.dim], z)
    assert torch.equal(FeatureExtractor(cache_dir=tmp_path / "other").extract(backbone, train_images), z)
    (layers,) = tmp_path.glob("*/layers-*.safetensors")
    layers.write_bytes(b"damaged")
    assert torch.equal(extractor.extract(layered, train_images, with_layers=True), spaces)
    assert sum(calls) == 2 * len(train_images)


def test_an_image_that_cannot_be_read_stops_the_extraction(backbone, tmp_path):
    rows = make_dataset(per_class=8)
    images = LabelledImages.from_dataset(rows)
    read = []

    def image(self, index, needed=None):
        read.append(index)
        if index == 3:
            raise ValueError("no image")
        return rows[index]["image"]

    with pytest.MonkeyPatch.context() as patched, pytest.raises(ValueError, match="no image"):
        patched.setattr(LabelledImages, "image", image)
        FeatureExtractor(batch_size=2, cache_dir=tmp_path).extract(backbone, images)
    assert len(read) <= 2 * 4  # those under way, and no more
