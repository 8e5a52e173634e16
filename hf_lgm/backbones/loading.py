"""A model of Transformers from a repository or folder, and what is said of its weights."""

import re
from typing import Any

import torch
import transformers  # whose parts are loaded when they are used

from ..hub import first_line, model_error
from .weights import without_report


def load_model(
    name: str,
    source: str,
    strip_prefix: str | None,
    dtype: torch.dtype,
    attn_implementation: str | None,
    hub_kwargs: dict[str, Any],
) -> tuple[Any, Any, dict[str, Any]]:
    """Configuration, model, and what is said of its weights; what is in the way is one sentence.

    Args:
        name (`str`): What messages call it.
        source (`str`): Hub id or folder.
        strip_prefix (`str`, *optional*): See [`~FrozenBackbone.from_pretrained`], also for the next two.
        dtype (`torch.dtype`): Likewise.
        attn_implementation (`str`, *optional*): Likewise.
        hub_kwargs (`dict`): Revision, token and the like.

    Raises:
        HubError: If the repository can't be had.
        ImportError: If it needs a package that is not installed.
        ValueError: If it is no vision model that `AutoModel` knows.
    """
    renamed = {"key_mapping": {f"^{re.escape(strip_prefix)}": ""}} if strip_prefix else {}
    try:
        config = transformers.AutoConfig.from_pretrained(source, **hub_kwargs)
        with without_report():
            model, info = transformers.AutoModel.from_pretrained(
                source,
                config=config,
                dtype=dtype,
                attn_implementation=attn_implementation,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # those that matter are refused, by name
                **renamed,
                **hub_kwargs,
            )
    except OSError as error:
        raise model_error(error, name) from error
    except ImportError as error:
        needed = " ".join(str(error).split()[:12])
        raise ImportError(
            f"'{name}' needs a package that is not installed ({needed} …). For timm's models: "
            "pip install 'hf_lgm[timm]'"
        ) from error
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # no vision model, a file that is cut off or of another kind, code of a repository
        raise ValueError(_explain_value(error, name)) from error
    return config, model, info


def _explain_value(error: Exception, name: str) -> str:
    if "custom code" in str(error):
        return f"'{name}' runs code of its own. Read it, and if you trust it, add trust_remote_code=True."
    return (
        f"'{name}' can't be loaded with AutoModel ({first_line(error)}). Expected a vision model; any other "
        "torch.nn.Module works live: FrozenBackbone(module, Preprocessing(image_size=…))."
    )
