"""The text head of models of images and text: class names in place of images."""

from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoTokenizer

from .backbone import FrozenBackbone

# The first of CLIP's templates (arXiv 2103.00020); ensembles of 80 give a few points more.
PROMPT = "a photo of a {}."
_BATCH = 256


class NoTextError(ValueError):
    """A model of images and text without a tokenizer that tells class names apart."""


@torch.no_grad()
def zero_shot_head(backbone: FrozenBackbone, class_names: list[str]) -> torch.Tensor:
    """Normalised text features of shape (C, D), of `PROMPT` with each class name.

    Of a name with synonyms, such as ImageNet's "tench, Tinca tinca", the first is taken.

    Args:
        backbone ([`FrozenBackbone`]): One that has text, in the space that images and text share.
        class_names (`list[str]`): Length C.

    Raises:
        NoTextError: If there is no tokenizer beside the model, or it does not know the words.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(backbone.source, revision=backbone.revision)
    except (OSError, ValueError, ImportError) as error:
        raise NoTextError(f"'{backbone.name}' has no tokenizer: {str(error).strip().splitlines()[0]}") from error
    prompts = [PROMPT.format(name.split(",")[0].replace("_", " ")) for name in class_names]
    model: Any = backbone.model
    # Padded to the full length, as SigLIP was trained; CLIP masks what is padded.
    padding = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    length, features = model.config.text_config.max_position_embeddings, []
    for start in range(0, len(prompts), _BATCH):
        batch = prompts[start : start + _BATCH]
        tokens = tokenizer(batch, max_length=length, **padding)
        if len(tokens["input_ids"].unique(dim=0)) < len(set(batch)):  # a tokenizer without files has no words
            raise NoTextError(f"the tokenizer of '{backbone.name}' does not tell the class names apart.")
        output = model.get_text_features(**tokens.to(backbone.mean.device))
        features.append(getattr(output, "pooler_output", output).float())
    return F.normalize(torch.cat(features), dim=1)
