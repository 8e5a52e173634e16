"""What a user of Python types first, each in an interpreter of its own."""

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow

LIVE_MODEL = (
    """
from transformers import AutoModel
from hf_lgm import LGMConfig, LGMDistiller
from hf_lgm.demo import demo_folder, load_digits_images

digits = load_digits_images()
model = AutoModel.from_pretrained(demo_folder("demo-vit"))
args = LGMConfig("out", max_steps=2, eval_seeds=1, disable_tqdm=True)
distiller = LGMDistiller(model, args, digits["train"], digits["test"])
distiller.train()
print(distiller.distilled_set())
print(distiller.evaluate()["eval_accuracy"])
""",
    r"DistilledSet\(10 images of 10 classes, 32x32, through demo-vit\)\n\d+\.\d+",
)

CLASSIFIER = (
    """
import torch
from transformers import AutoModelForImageClassification
from hf_lgm import FrozenBackbone
from hf_lgm.demo import demo_folder, load_digits_images

digits = load_digits_images()["test"].select(range(5))
classifier = AutoModelForImageClassification.from_pretrained(demo_folder("demo-convnext"), dtype=torch.float32)
features = FrozenBackbone.wrap(classifier).encode(digits)
print(torch.allclose(features, FrozenBackbone.from_pretrained("demo-convnext").encode(digits), atol=1e-5))
""",
    "True",
)

TIMM_MODEL = (
    """
import timm
from hf_lgm import FrozenBackbone
from hf_lgm.demo import load_digits_images

backbone = FrozenBackbone.wrap(timm.create_model("mobilenetv3_small_050"))
print(backbone.name, tuple(backbone.encode(load_digits_images()["test"].select(range(4))).shape))
""",
    r"mobilenetv3_small_050 \(4, 1024\)",
)

OWN_MODULE = (
    """
from torch import nn
from hf_lgm import FrozenBackbone, LGMConfig, LGMDistiller, Preprocessing
from hf_lgm.demo import load_digits_images

digits = load_digits_images()
net = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU())
backbone = FrozenBackbone(net, Preprocessing(image_size=32), name="mine")
distiller = LGMDistiller(backbone, LGMConfig("out", max_steps=2, disable_tqdm=True), digits["train"])
distiller.train()
print(distiller.distilled_set())
""",
    r"DistilledSet\(10 images of 10 classes, 32x32, through mine\)",
)

LIST_OF_IMAGES = (
    """
from hf_lgm import LGMConfig, LGMDistiller
from hf_lgm.demo import load_digits_images

pairs = [(row["image"], f"digit {row['label']}") for row in load_digits_images()["train"].select(range(300))]
distiller = LGMDistiller("demo-vit", LGMConfig("out", max_steps=2, disable_tqdm=True), pairs)
distiller.train()
print(distiller.distilled_set().class_names[3])
""",
    "digit 3",
)

ARRAYS = (
    """
from sklearn.datasets import load_digits
from hf_lgm import evaluate_probe, select_baseline

digits = load_digits()
images = (digits.images * 255 / 16).astype("uint8")
train, test = (images[:1000], digits.target[:1000]), (images[1000:], digits.target[1000:])
print(evaluate_probe("demo-vit", select_baseline("centroid", "demo-vit", train), test, protocol=quick))
""",
    r"\d+\.\d ± \d+\.\d %",
)

TORCH_DATASET = (
    """
from torch.utils.data import Dataset, random_split
from hf_lgm import evaluate_probe, select_baseline
from hf_lgm.demo import load_digits_images

class Digits(Dataset):
    classes = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    rows = load_digits_images()["train"]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        return row["image"], row["label"]

train, test = random_split(Digits(), [0.8, 0.2])
images = select_baseline("random", "demo-vit", train)
print(images.class_names[:2], evaluate_probe("demo-vit", images, test, protocol=quick))
""",
    r"\['zero', 'one'\] \d+\.\d ± \d+\.\d %",
)

TABLE = (
    """
from hf_lgm import compare, select_baseline
from hf_lgm.demo import load_digits_images

digits = load_digits_images()
sets = {kind: select_baseline(kind, "demo-vit", digits["train"]) for kind in ("random", "centroid")}
table = compare(sets, ["demo-vit", "demo-convnext"], digits["train"], digits["test"], baselines=[], protocol=quick)
print(table)
""",
    r"\| trained on +\| demo-vit +\| demo-convnext \|\n\|-+\|-+\|-+\|\n\| random +\| \d+\.\d ± \d+\.\d",
)

PANDAS = (
    """
import hf_lgm
from hf_lgm.demo import load_digits_images

digits = load_digits_images()
images = hf_lgm.select_baseline("random", "demo-vit", digits["train"])
table = hf_lgm.compare({"random": images}, "demo-vit", None, digits["test"], protocol=quick).to_pandas()
print(table.loc["random", "demo-vit"] > 20, table.shape)
print(hf_lgm.evaluate_probe("demo-vit", images, digits["test"], protocol=quick).to_pandas()["metric"].tolist())
""",
    r"True \(1, 1\)\n\['top-1', 'top-5'\]",
)

NOTEBOOK = (
    """
from hf_lgm import compare, select_baseline
from hf_lgm.demo import load_digits_images

digits = load_digits_images()
images = select_baseline("centroid", "demo-vit", digits["train"])
print(images._repr_html_().count("<img"), images.show().size, len(images), images[-1]["label"], images)
print("<td>" in compare({"centroid": images}, "demo-vit", None, digits["test"], protocol=quick)._repr_html_())
""",
    r"10 \(\d+, \d+\) 10 9 DistilledSet\(10 real images of 10 classes, 32x32, chosen through demo-vit\)\nTrue",
)

FROM_A_FOLDER = (
    """
from datasets import load_dataset
from hf_lgm import DistilledSet, evaluate_probe, select_baseline
from hf_lgm.demo import load_digits_images

digits = load_digits_images()
select_baseline("centroid", "demo-vit", digits["train"]).save_pretrained("digits-centroid")
ours = evaluate_probe("demo-convnext", DistilledSet.from_pretrained("digits-centroid"), digits["test"], protocol=quick)
plain = evaluate_probe("demo-convnext", load_dataset("digits-centroid"), digits["test"], protocol=quick)
again = evaluate_probe("demo-convnext", "./digits-centroid", digits["test"], protocol=quick)
print(ours.mean == plain.mean == again.mean)
""",
    "True",
)

PROBE = (
    """
import torch
from hf_lgm import ProbeModel, select_baseline
from hf_lgm.demo import load_digits_images

digits = load_digits_images()
probe = ProbeModel.train_on("demo-vit", select_baseline("centroid", "demo-vit", digits["train"]))
images = digits["test"]["image"][:20]
print(tuple(probe(images).shape), isinstance(probe, torch.nn.Module))
features = probe.backbone.encode(images).numpy()
print(probe.to_sklearn().predict(features).tolist() == probe.predict(images))
""",
    r"\(20, 10\) True\nTrue",
)

ENCODE = (
    """
import numpy as np
import torch
from hf_lgm import FrozenBackbone
from hf_lgm.demo import load_digits_images

images = load_digits_images()["test"]["image"][:3]
backbone = FrozenBackbone.from_pretrained("demo-vit")
features = backbone.encode(images)
print(tuple(backbone.encode(images[0]).shape) == (1, backbone.dim), len(features))
print(torch.equal(features, backbone.encode(np.stack([np.asarray(image) for image in images]))))
""",
    "True 3\nTrue",
)

IMAGES_PER_CLASS = (
    """
from hf_lgm import LGMConfig, LGMDistiller
from hf_lgm.demo import load_digits_images

digits = load_digits_images()
args = LGMConfig("out", images_per_class=3, max_steps=2, disable_tqdm=True)
distiller = LGMDistiller(["demo-vit", "demo-convnext"], args, digits["train"])
distiller.train()
print(distiller.distilled_set())
""",
    r"DistilledSet\(30 images of 10 classes, 32x32, through demo-vit and demo-convnext\)",
)

SNIPPETS = {
    name.lower(): snippet for name, snippet in dict(globals()).items() if name.isupper() and isinstance(snippet, tuple)
}


@pytest.mark.parametrize("name", SNIPPETS)
def test_it_runs(name, tmp_path):
    if name == "timm_model":
        pytest.importorskip("timm")
    code, expected = SNIPPETS[name]
    code = f"from hf_lgm import ProbeProtocol\nquick = ProbeProtocol(views=5, seeds=2)\n{code}"
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.fullmatch(rf"{expected}[^~]*", done.stdout.strip()), done.stdout
