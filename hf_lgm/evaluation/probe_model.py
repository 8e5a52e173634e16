"""The probe that a few images make, with its backbone, as a model that others can load."""

import functools
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from ..backbones.backbone import FrozenBackbone
from ..data.images import to_images
from ..hub import without_folders
from ..publishing.card import render_probe_card
from ..publishing.distilled_set import DistilledSet
from ..publishing.files import CONFIG_FILE, RESULTS_FILE, write_json
from ..publishing.provenance import declared_license
from ..publishing.repository import HubRepository
from ..settings import ProbeProtocol
from .native import head_of, image_processor, own_classifier
from .probe import ViewFeatures, train_probes
from .probe_files import HEAD_FILE, read_probe

if TYPE_CHECKING:
    import sklearn.linear_model
    import transformers

logger = logging.getLogger(__name__)
_PUBLISHED = ("README.md", "config.json", "preprocessor_config.json", CONFIG_FILE, RESULTS_FILE, HEAD_FILE)

# Largest difference of logits, as a share of the largest logit, at which a head counts as ours.
_TOLERANCE = 1e-3


class ProbeModel(nn.Module):
    """A linear probe on a frozen backbone: an image classifier, as a module, in scikit-learn and in Transformers.

    Args:
        backbone ([`FrozenBackbone`]): D features per image.
        weight (`torch.Tensor`): Shape (C, D).
        bias (`torch.Tensor`): Shape (C,).
        class_names (`list[str]`): Length C.
        config (`dict`, *optional*): How it came about, for its card.
        results (`list[dict]`, *optional*): What was measured of probes trained alike, for its card.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(
        self,
        backbone: FrozenBackbone,
        weight: torch.Tensor,
        bias: torch.Tensor,
        class_names: list[str],
        config: dict[str, Any] | None = None,
        results: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("weight", weight.to(backbone.mean.device))
        self.register_buffer("bias", bias.to(backbone.mean.device))
        self.class_names = class_names
        self.config, self.results = config or {}, results or []

    @classmethod
    def train_on(cls, backbone: Any, train_set: Any, license: str | None = None) -> "ProbeModel":
        """The first of the probes that a set is evaluated by.

        Args:
            backbone ([`FrozenBackbone`], `str` or `torch.nn.Module`): What it sees through: also an id, a folder, or a
                live model.
            train_set ([`DistilledSet`], `str` or `datasets.Dataset`): What it is trained on: also a set's folder or
                Hub id, or a plain dataset of a few images.
            license (`str`, *optional*): That of the backbone; what its card says where not given.
        """
        backbone, distilled = FrozenBackbone.wrap(backbone), DistilledSet.wrap(train_set)
        protocol, num_classes = ProbeProtocol(seeds=1), len(distilled.class_names)
        features = ViewFeatures(backbone, [distilled], distilled.views)
        y = distilled.targets_as(distilled.class_names)[None]
        W, b = train_probes(features, y.to(features(0).device), num_classes, protocol)
        name = distilled.config.get("training_set", "distilled")
        config = {
            **{name: value for name, value in distilled.config.items() if name != "more_backbones"},
            "artifact": "probe",
            "backbone": backbone.describe(),
            "class_names": distilled.class_names,
            "num_images": len(distilled.dataset),
            "probe": protocol.description,
            "license": license or declared_license(backbone.source),
        }
        results = [r for r in distilled.results if (r["training_set"], r["backbone"]) == (name, backbone.name)]
        return cls(backbone, W[0], b[0], distilled.class_names, config, results)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, revision: str | None = None) -> "ProbeModel":
        """Load a head, and the backbone that it names. Nothing of the repository is executed.

        Only for backbones that Transformers has no such classifier of; for the others there is
        `pipeline("image-classification")`.

        Args:
            name_or_path (`str` or `Path`): A folder, or a Hub model id.
            revision (`str`, *optional*): Branch, tag or commit.

        Raises:
            FileNotFoundError: If there is no head.
            HubError: If the repository can't be had.
            ValueError: If what is there is not a head; the message names the file and what is wrong in it.
        """
        config, weight, bias = read_probe(str(name_or_path), revision)
        made = config["backbone"]
        backbone = FrozenBackbone.from_pretrained(
            made["source"],
            image_size=made["image_size"],
            resize_ratio=made["resize_ratio"],
            image_mean=made["mean"],
            image_std=made["std"],
            feature_pooling=made["pooling"],
            revision=made["revision"],
        )
        if backbone.dim != weight.shape[1]:
            raise ValueError(
                f"{HEAD_FILE} is for {weight.shape[1]} features, and its backbone '{made['source']}' gives "
                f"{backbone.dim}. Is it another revision?"
            )
        return cls(backbone, weight, bias, config["class_names"], config)

    def forward(self, images: Any = None, *, features: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of shape (N, C), of images or of their features.

        Args:
            images (*optional*): What [`~FrozenBackbone.encode`] takes: PIL images, arrays, a dataset, 8-bit crops. Or
                crops of shape (N, 3, image_size, image_size) in [0, 1], to which gradients reach.
            features (`torch.Tensor`, *optional*): In their place, features of shape (N, D).

        Raises:
            TypeError: If both are given, or neither.
        """
        if (images is None) == (features is None):
            raise TypeError("Give either images or features.")
        if features is None:
            is_float = isinstance(images, torch.Tensor) and images.is_floating_point()
            features = self.backbone(images.to(self.backbone.mean)) if is_float else self.backbone.encode(images)
        return features.to(self.weight) @ self.weight.T + self.bias

    @torch.no_grad()
    def predict(self, images: Any = None, *, features: torch.Tensor | None = None) -> list[str]:
        """Names of the classes of images, or of features, as calling it takes them."""
        return [self.class_names[label] for label in self(images, features=features).argmax(dim=1).tolist()]

    def train(self, mode: bool = True) -> "ProbeModel":
        """Stays in eval mode, as its backbone does."""
        return super().train(False)

    def extra_repr(self) -> str:
        """What it prints besides its backbone."""
        return f"classes={len(self.class_names)}, features={self.backbone.dim}"

    def to_sklearn(self) -> "sklearn.linear_model.LogisticRegression":
        """The same classifier in scikit-learn, on features, such as `backbone.encode(images).cpu().numpy()`.

        Its `classes_` are the names. Of two classes it has one row of weights, as scikit-learn does: the second's less
        the first's.
        """
        from sklearn.linear_model import LogisticRegression  # here, since it is slow to load

        weight, bias = self.weight.double().cpu().numpy(), self.bias.double().cpu().numpy()
        if len(bias) == 2:
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        classifier = LogisticRegression()
        classifier.classes_ = np.array(self.class_names)
        classifier.coef_, classifier.intercept_ = weight, bias
        classifier.n_features_in_ = weight.shape[1]
        return classifier

    def usage(self, name: str) -> str:
        """Code that loads it from a folder or a repository."""
        if self.to_transformers() is not None:
            return f'pipeline("image-classification", model="{name}")'
        return f'hf_lgm.ProbeModel.from_pretrained("{name}")'

    def to_transformers(self) -> "transformers.PreTrainedModel | None":
        """The same as the architecture's own image classifier; `None` where its head does not see our features."""
        return self._classifier

    @functools.cached_property
    def _classifier(self) -> "transformers.PreTrainedModel | None":
        model = own_classifier(self.backbone.model, self.class_names)
        head = head_of(model, len(self.class_names)) if model is not None else None
        if model is None or head is None:
            return None
        weight = torch.zeros_like(head.weight)
        if weight.shape[1] not in (self.backbone.dim, 2 * self.backbone.dim):
            return None
        weight[:, : self.backbone.dim] = self.weight.cpu()  # DINOv2's head also sees the mean of the patches
        head.weight.data, head.bias.data = weight, self.bias.cpu().clone()
        return model if self._agrees(model) else None

    def save_pretrained(self, folder: str | Path, *, repo_id: str | None = None) -> Path:
        """Write the model, with our preprocessing and a card; returns the folder.

        Args:
            folder (`str` or `Path`): Where to.
            repo_id (`str`, *optional*): What the card says it is loaded by; the folder where not given.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        model = self.to_transformers()
        config = {**self.config, "is_native": model is not None}
        if model is not None:
            model.save_pretrained(folder)
            image_processor(self.backbone.preprocessing).save_pretrained(folder)
        else:
            logger.info("%s has no classifier of its own on these features: saving the head", self.backbone.name)
            save_file(
                {"weight": self.weight.cpu().contiguous(), "bias": self.bias.cpu().contiguous()}, folder / HEAD_FILE
            )
            source = self.backbone.source or self.backbone.name
            config["backbone"] = {**config["backbone"], "source": without_folders(source) if repo_id else source}
        for name, value in ((CONFIG_FILE, config), (RESULTS_FILE, self.results)):
            write_json(folder / name, value)
        card = render_probe_card(config, self.results, repo_id or folder.resolve().name)
        (folder / "README.md").write_text(card, encoding="utf-8")
        return folder

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        tag: str | None = None,
        overwrite: bool = False,
        token: str | None = None,
    ) -> str:
        """Publish it as a Hub model, in one commit; returns its address. See [`DistilledSet.push_to_hub`]."""
        why = None if self.config.get("license") else f"the licence of {self.backbone.name} is unknown"
        repository = HubRepository(
            repo_id,
            "model",
            config=self.config,
            private=private,
            why_private=why,
            tag=tag,
            overwrite=overwrite,
            token=token,
        )
        with tempfile.TemporaryDirectory() as temporary:
            folder = self.save_pretrained(temporary, repo_id=repo_id)
            files = [folder / name for name in _PUBLISHED if (folder / name).is_file()]
            files += sorted(folder.glob("model*.safetensors*"))
            return repository.push({path.name: path for path in files}, "Upload with hf_lgm")

    @torch.no_grad()
    def _agrees(self, model: "transformers.PreTrainedModel") -> bool:
        """Whether a classifier gives our logits, through its own image processor: of blots, square and not."""
        p, generator = self.backbone.preprocessing, torch.Generator().manual_seed(0)
        blots = to_images(torch.rand(8, 3, 4, 4, generator=generator))
        shapes = [(p.image_size * (1 + number % 2), p.image_size) for number in range(len(blots))]
        blots = [blot.resize(shape, Image.Resampling.BICUBIC) for blot, shape in zip(blots, shapes, strict=True)]
        ours = self(blots).cpu()
        try:
            theirs = model(**image_processor(p)(blots, return_tensors="pt")).logits
        except (RuntimeError, ValueError, TypeError) as error:  # it takes no other image size than its own, say
            logger.info("Not the architecture's own classifier: %s", error)
            return False
        difference = float((theirs - ours).abs().max() / ours.abs().max())
        logger.info("Logits of the architecture's own classifier differ from ours by %.1e of the largest", difference)
        return difference < _TOLERANCE
