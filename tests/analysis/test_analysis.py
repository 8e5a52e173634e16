"""A whole analysis: what Python gives, the folder that is written, names that break what is careless."""

import dataclasses
import json
import re
import sys
from xml.etree import ElementTree

import matplotlib.figure
import pytest
import torch
from conftest import SIDE, make_dataset, make_vit
from datasets import ClassLabel, Features, Image
from PIL import Image as PillowImage

import hf_lgm
from hf_lgm import DistilledSet, FrozenBackbone, LabelledImages, Preprocessing, ProbeProtocol, analyze, select_baseline
from hf_lgm.analysis import report
from hf_lgm.cli import analyze as command
from hf_lgm.evaluation.evaluator import Evaluator
from hf_lgm.evaluation.transfer import mutual_knn_alignment
from hf_lgm.publishing import plotting
from hf_lgm.publishing.plotting import COLOURS, MARKERS, short_label
from hf_lgm.publishing.results import ALL_REAL_IMAGES

NASTY = ["<script>alert(1)</script>", r"$math$ \frac{1}", "x" * 300, "שלום | *עולם*", "two\nlines \x00", "emoji 🐈"]
QUICK = ProbeProtocol(epochs=20, views=2, seeds=2)


def named_dataset(names, **kwargs):
    dataset = make_dataset(classes=len(names), **kwargs)
    return dataset.cast(Features({"image": Image(), "label": ClassLabel(names=names)}))


def distilled_like(names, backbone, seed=0):
    """A set that says it was made through a backbone."""
    pixels = torch.rand(len(names), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return DistilledSet.from_pixels(pixels, range(len(names)), names, {"backbone": backbone.describe()})


def other_backbone():
    return FrozenBackbone(make_vit(seed=1), Preprocessing(image_size=SIDE, resize_ratio=1.0), name="user/other $net$")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """An analysis with everything in it: nasty names, groups, two backbones with a set of each."""
    folder = tmp_path_factory.mktemp("analysis")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_lgm.features.cache.cached_assets_path", lambda *parts: folder / "cache")
        first = FrozenBackbone(make_vit(), Preprocessing(image_size=SIDE, resize_ratio=1.0), name="tiny-dinov2")
        backbones = [first, other_backbone()]
        splits = []
        for seed in (0, 1):
            dataset = named_dataset(NASTY, seed=seed)
            places = ["<b>land</b>", "$sea$"] * (len(dataset) // 2)
            dataset = dataset.add_column("place", places)
            splits.append(LabelledImages.from_dataset(dataset, group_column_name="place"))
        sets = [distilled_like(NASTY[::-1], each, seed) for seed, each in enumerate(backbones)]
        found = analyze(sets[0], backbones, *splits, name="a <set> of $mine$", others=[sets[1]], protocol=QUICK)
        found.save(folder / "out")
        yield found, sets, backbones, splits, folder / "out"


def test_its_accuracies_are_those_of_the_evaluator(written):
    found, sets, backbones, (train, test), _ = written
    for each, backbone in zip(found.through, backbones, strict=True):
        evaluator = Evaluator(backbone, test, train, QUICK)
        ours = evaluator.probe("distilled", [sets[0]] * 2, sets[0].views)
        full = evaluator.reference(ALL_REAL_IMAGES)
        assert (each.of_set, each.of_full) == pytest.approx((ours.mean, full.mean), abs=0.01)
        assert {one.name: one.of_set for one in each.classes} == pytest.approx(ours.per_class, abs=0.01)
        assert {one.name: one.of_full for one in each.classes} == pytest.approx(full.per_class, abs=0.01)
        groups = {f"{one.class_name} / {one.group}": one.of_set for one in each.groups}
        assert groups == pytest.approx(ours.per_group, abs=0.01)
        losses = [one.loss for one in each.classes]
        assert losses == sorted(losses, reverse=True)


def test_its_transfer_is_of_both_sets_on_both_backbones(written):
    found, sets, backbones, (train, test), _ = written
    assert found.transfer.backbones == ["tiny-dinov2", "user/other $net$"]
    evaluators = [Evaluator(each, test, train, QUICK) for each in backbones]
    expected = [[e.probe("x", [images] * 2, images.views).mean for e in evaluators] for images in sets]
    assert found.transfer.accuracy.flatten().tolist() == pytest.approx(sum(expected, []), abs=0.01)
    alike = mutual_knn_alignment(*(evaluator.scored.z for evaluator in evaluators))
    assert found.transfer.alignment[0, 1] == pytest.approx(alike)


def test_its_json_holds_all_numbers(written):
    found, _, _, _, folder = written
    read = json.loads((folder / "analysis.json").read_text(encoding="utf-8"))
    assert read["artifact"] == "analysis"
    assert {name: read[name] for name in found.to_dict()} == json.loads(json.dumps(found.to_dict()))
    of_first = read["backbones"]["tiny-dinov2"]
    assert len(of_first["classes"]) == 6 and len(of_first["groups"]) == 12
    assert all(one["nearest_real_row"] is not None for one in of_first["groups"])
    named = {one["class"] for one in of_first["projection"]["synthetic_images"]}
    assert named == set(NASTY)
    assert sorted(read["files"]) == sorted(path.name for path in folder.iterdir() if path.name != "analysis.json")


def test_its_plots_are_valid_and_say_what_they_show(written):
    found, _, _, _, folder = written
    names = {path.stem for path in folder.glob("*.png")}
    of_backbones = {f"{kind}-{name}" for kind in ("projection", "similarity", "classes", "groups") for name in (
        "tiny-dinov2", "other-net-")}  # fmt: skip
    assert names == of_backbones | {"spectrum", "agreement"}
    for name in names:
        with PillowImage.open(folder / f"{name}.png") as image:
            image.load()
            assert min(image.size) > 400
        root = ElementTree.parse(folder / f"{name}.svg").getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert not [element for element in root.iter() if element.tag.endswith("script")]
        assert not list(root.iter("{http://www.w3.org/2000/svg}text"))  # paths, which look alike everywhere
    page = (folder / "analysis.md").read_text(encoding="utf-8")
    assert page.startswith(r"# What a \<set\> of \$mine\$ shows")
    assert set(re.findall(r"\]\((\S+)\.png\)", page)) == names
    assert "<script>" not in page and re.search(r"[^\\]\$", page) is None
    assert not re.search("[\x00-\x08]", page)
    for alt, caption in re.findall(r"^!\[(.+)\]\(\S+\)\n\n(.+)$", page, flags=re.MULTILINE):
        assert alt and re.search(r"\d", caption), alt


def texts_of(figure):
    figure.canvas.draw()
    return {text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()}


def test_names_are_drawn_as_text(written):
    found = written[0]
    with plotting.plot_style():
        for plot in report._plots(found):
            texts = plot.figure.findobj(matplotlib.text.Text)
            assert not any(text.get_parse_math() for text in texts), plot.name
            shown = texts_of(plot.figure)
            if plot.name.startswith(("projection", "classes")):
                assert {short_label(name) for name in NASTY} <= shown
            assert all(len(text) < 110 for text in shown), plot.name
    assert short_label(NASTY[0], 40) == NASTY[0] and short_label(NASTY[1]) == NASTY[1]
    assert short_label("x" * 300, 22) == "x" * 21 + "…"
    assert short_label(NASTY[4]) == "two lines"


def test_a_name_with_dollars_is_drawn_with_dollars(tmp_path):
    """Its pixels are those of the text, not of a formula."""
    with plotting.plot_style():
        figure = plotting.new_figure(2, 1)
        figure.text(0.1, 0.5, "$x$")
        plotting.save_figure(figure, tmp_path / "plain")
    formula = matplotlib.figure.Figure(figsize=(2, 1), layout="constrained")
    formula.text(0.1, 0.5, "$x$")
    formula.savefig(tmp_path / "formula.svg", metadata={"Date": None})
    glyphs = [len(re.findall("<use ", (tmp_path / f"{name}.svg").read_text())) for name in ("plain", "formula")]
    assert glyphs == [3, 1]


def test_ten_classes_can_be_told_apart():
    looks = {(COLOURS[n % len(COLOURS)], MARKERS[n % len(MARKERS)]) for n in range(70)}
    assert len(looks) == 70


def test_many_classes_are_a_sample_and_the_worst(backbone, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(report, "save_figure", lambda figure, path: saved.append(path.name))  # takes seconds
    names = [f"class {number}" for number in range(45)]
    train, test = (named_dataset(names, per_class=3, seed=seed) for seed in (0, 1))
    found = analyze(distilled_like(names, backbone), backbone, train, test, protocol=QUICK)
    assert found.transfer is None and found.through[0].groups == []
    folder = found.save(tmp_path / "out")
    page = (folder / "analysis.md").read_text(encoding="utf-8")
    assert "20 of 45 classes are drawn" in page
    assert saved == ["projection-tiny-dinov2", "similarity-tiny-dinov2", "classes-tiny-dinov2", "spectrum"]


def test_an_earlier_analysis_is_replaced_and_what_is_not_ours_stays(written, tmp_path):
    found = dataclasses.replace(written[0], through=[])
    found.save(tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {"spectrum.png", "agreement.png"}
    (tmp_path / "notes.txt").write_text("mine")
    without = dataclasses.replace(found, transfer=None)
    without.save(tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {"spectrum.png"}
    assert (tmp_path / "notes.txt").exists()
    (tmp_path / "analysis.json").write_text("{}")
    with pytest.raises(FileExistsError, match=r"holds analysis\.(json|md), which is not of a run of hf_lgm"):
        without.save(tmp_path)


def test_without_matplotlib_it_is_numbers(written, tmp_path, monkeypatch):
    monkeypatch.setattr(plotting, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"matplotlib, which is not installed: pip install 'hf_lgm\[plots\]'"):
        written[0].save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_few_real_images_are_a_sentence(backbone):
    train = make_dataset(per_class=2)
    images = select_baseline("random", backbone, train)
    with pytest.raises(ValueError, match="at least 3 training images of each class; 'class 0' has 2"):
        analyze(images, backbone, train, train)


def test_other_classes_are_a_sentence(backbone, splits):
    images = select_baseline("random", backbone, named_dataset(["a", "b", "c"]))
    with pytest.raises(ValueError, match="'mine' has"):
        analyze(images, backbone, splits["train"], splits["test"], name="mine")


def test_another_projection_is_a_sentence(backbone, splits):
    with pytest.raises(ValueError, match="projection must be one of pca, umap, found 'tsne'"):
        analyze(None, backbone, None, None, projection="tsne")


def test_the_command(model_folder, dataset_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train, _ = hf_lgm.load_images(dataset_folder)
    select_baseline("random", model_folder, train).save_pretrained(tmp_path / "sets" / "mine")
    flags = ["--model", model_folder, "--dataset", dataset_folder, "--eval_seeds", "1", "--use_cpu", "true"]
    monkeypatch.setattr(sys, "argv", ["hf-lgm analyze", "sets/mine", *flags])
    command.main()
    printed, folder = capsys.readouterr().out, tmp_path / "outputs" / "mine-analysis"
    assert "Look at: outputs/mine-analysis/analysis.md" in printed.replace("\\", "/")
    assert (folder / "projection-tiny-dinov2.png").exists()
    assert json.loads((folder / "analysis.json").read_text())["set"] == "mine"
    (folder / "analysis.json").write_text("[]")
    with pytest.raises(FileExistsError, match="choose another output_dir"):
        command.main()


def test_a_set_is_not_written_into(tmp_path, monkeypatch, backbone, splits):
    select_baseline("random", backbone, splits["train"]).save_pretrained(tmp_path / "mine")
    flags = ["--sets", str(tmp_path / "mine"), "--output_dir", str(tmp_path / "mine")]
    monkeypatch.setattr(sys, "argv", ["hf-lgm analyze", *flags])
    with pytest.raises(ValueError, match="mine is a set: give another --output_dir"):
        command.main()


def test_a_command_without_a_set(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["hf-lgm analyze", "--model", "demo-vit"])
    with pytest.raises(ValueError, match="Name the set to analyze: hf-lgm analyze SET"):
        command.main()
