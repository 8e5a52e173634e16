import dataclasses

import pytest
import yaml
from transformers import TrainingArguments

from hf_lgm import LGMConfig, ProbeProtocol
from hf_lgm.inherited import HONOURED, ignored_fields

OTHER = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v + 0.5, str: lambda v: v + "x"}


@pytest.mark.parametrize("name", sorted(f.name for f in dataclasses.fields(TrainingArguments)))
def test_every_inherited_field_is_honoured_or_refused(name, tmp_path):
    if name in HONOURED:
        assert name not in ignored_fields()
        return
    default = getattr(TrainingArguments(output_dir=str(tmp_path)), name)
    change = OTHER.get(type(default))
    moved = change(default) if change and not hasattr(default, "value") else "moved"
    with pytest.raises(ValueError, match=f"LGMConfig does not take {name}="):
        LGMConfig(**{name: moved})


def test_replace_makes_a_copy():
    assert dataclasses.replace(LGMConfig(seed=3), init="centroid").own_settings() == {
        **LGMConfig(seed=3).own_settings(),
        "init": "centroid",
    }


def test_refusals_say_what_to_use():
    with pytest.raises(ValueError, match="does not take num_train_epochs=5; use max_steps"):
        LGMConfig(num_train_epochs=5)
    with pytest.raises(ValueError, match="does not take weight_decay=0.1; it has no meaning for a distillation"):
        LGMConfig(weight_decay=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images_per_class": 0}, "images_per_class must be at least 1, found 0"),
        ({"max_steps": -1}, "max_steps must be at least 1"),
        ({"chunk_size": 0}, "chunk_size must be at least 1"),
        ({"parameterization": "wavelet"}, "parameterization must be one of pyramid, pixel, latent, found 'wavelet'"),
        ({"init": "real"}, "init must be one of noise, centroid, random"),
        ({"objective": "mse"}, "objective must be one of lgm, ridge, found 'mse'"),
        ({"objective": "ridge", "real_features": "online"}, "use real_features='cached'"),
        ({"label_learning_rate": -0.1}, "label_learning_rate can't be negative"),
        ({"label_learning_rate": 0.1, "images_per_class": 2}, "use objective='ridge' or cluster_classes=False"),
        ({"real_features": "streamed"}, "real_features must be one of cached, online"),
        ({"growth_share": 1.5}, "growth_share is a share of the run between 0 and 1, found 1.5"),
        ({"crop_scale": [0.5, 0.1]}, "crop_scale must be two areas"),
        ({"crop_scale": [0.5]}, "crop_scale must be two areas"),
        ({"probe_std": -1.0}, "probe_std can't be negative"),
        ({"eval_protocol": "slow"}, "eval_protocol must be one of fast, paper, found 'slow'"),
        ({"eval_strategy": "epoch"}, "There are no epochs"),
        ({"save_strategy": "best"}, "There are no epochs"),
    ],
)
def test_values_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        LGMConfig(**settings)


def test_the_papers_protocol_is_the_recipe(request):
    recipe = yaml.safe_load((request.config.rootpath / "recipes" / "paper.yaml").read_text())
    assert LGMConfig.paper().own_settings() == LGMConfig(**recipe).own_settings()
    assert LGMConfig.paper().probe_protocol == LGMConfig(**recipe).probe_protocol == ProbeProtocol.named("paper")
    assert LGMConfig.paper(max_steps=7).max_steps == 7


def test_every_own_field_has_help():
    inherited = {f.name for f in dataclasses.fields(TrainingArguments)}
    assert all(f.metadata.get("help") for f in dataclasses.fields(LGMConfig) if f.name not in inherited)


def test_own_settings_hold_what_decides_the_result_and_no_paths(tmp_path):
    settings = LGMConfig(output_dir=str(tmp_path), seed=3, logging_steps=7, chunk_size=5).own_settings()
    assert settings["seed"] == 3 and settings["learning_rate"] == LGMConfig.learning_rate
    assert not {"output_dir", "logging_steps", "chunk_size", "save_steps"} & set(settings)
    assert settings == LGMConfig(seed=3).own_settings()
