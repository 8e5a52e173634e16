"""Made-up galleries: sets of plain colours, with relations and growth that are known."""

import json
import re

import torch
from PIL import Image

from hf_lgm import DistilledSet
from hf_lgm.gallery.data import ShownSet, page_data
from hf_lgm.gallery.growth import Growth
from hf_lgm.gallery.page import render_page
from hf_lgm.gallery.relations import RealNeighbor, Relations

CLASSES = ["goldfish", "great white shark", "Café au lait", "owl", "newt", "axolotl"]
SEEN = {"model": "maker/net", "dataset": "photos", "split": "train"}
FRAMES = 5


def colour(label, classes):
    """Of a class, so that no two are alike."""
    return torch.tensor([label / classes, 1 - label / classes, 0.5 * (label % 2)])


def make_shown(names=CLASSES, per_class=1, name="distilled", real_rows=(), details=True, size=8):
    """A set of one colour for each class, as the gallery takes it; rows among `real_rows` are real images."""
    classes = len(names)
    labels = [label for label in range(classes) for _ in range(per_class)]
    pixels = torch.stack([colour(label, classes) for label in labels])[:, :, None, None].expand(-1, 3, size, size)
    sources = [100 + row if row in real_rows else None for row in range(len(labels))] if real_rows else None
    config = {"backbone": {"name": "maker/net"}, "source": {"dataset": "maker/photos", "license": "cc-by-4.0"}}
    images = DistilledSet.from_pixels(pixels, labels, list(names), config, sources)
    if not details:
        return ShownSet(name, images)
    return ShownSet(name, images, make_growth(len(images), size), make_relations(labels, classes))


def make_growth(count, size):
    """Frame k shows in cell i the grey 40 * k + i."""
    frames = []
    for number in range(FRAMES):
        frame = Image.new("RGB", (count * size, size))
        for cell in range(count):
            grey = 40 * number + cell
            frame.paste((grey, grey, grey), (cell * size, 0, (cell + 1) * size, size))
        frames.append(frame)
    return Growth(frames, count, 1, {row: row for row in range(count)})


def make_relations(labels, classes, image=None):
    """Nearest are the next ones; of each class's ten real images seven are taken for it, three for the next class."""
    count = len(labels)
    real = [
        [RealNeighbor(1000 + 10 * row + k, labels[row], 0.9 - 0.1 * k, image) for k in range(2)]
        for row in range(count)
    ]
    synthetic = [[((row + 1) % count, 0.75)] for row in range(count)]
    confusions = 7 * torch.eye(classes, dtype=torch.long)
    confusions += 3 * torch.eye(classes, dtype=torch.long).roll(1, dims=1)
    return Relations(real, synthetic, confusions)


def make_page(*shown, **kwargs):
    """The page of some sets, of the made-up one where none is given."""
    sets = shown or (make_shown(),)
    return render_page(page_data(sets, SEEN if sets[0].relations else None, **kwargs))


def data_of(page):
    """What the script of a page reads."""
    (text,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', page, flags=re.DOTALL)
    return json.loads(text)
