import dataclasses

import pytest
import yaml
from transformers import TrainingArguments

from hf_lgm import LGMConfig, ProbeProtocol
from hf_lgm.arguments import LGMArguments
from hf_lgm.backbones.preprocessing import DEFAULT_RESIZE_RATIO, IMAGENET_MEAN, IMAGENET_STD
from hf_lgm.cli.arguments import ModelArguments
from hf_lgm.cli.parsing import described_fields
from hf_lgm.config import DECIDING

OTHER = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v + 0.5, str: lambda v: v + "x"}


@pytest.mark.parametrize("name", sorted(f.name for f in dataclasses.fields(TrainingArguments)))
def test_every_inherited_field_is_honoured_or_refused(name, tmp_path):
    if name in {f.name for f in dataclasses.fields(LGMArguments)}:
        assert described_fields(LGMArguments)[name]
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
    with pytest.raises(ValueError, match="does not take torch_compile=True; use nothing: compiling takes longer"):
        LGMConfig(torch_compile=True)
    with pytest.raises(ValueError, match="does not take weight_decay=0.1; it has no meaning for a distillation"):
        LGMConfig(weight_decay=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images_per_class": 0}, "images_per_class must be at least 1, found 0"),
        ({"max_steps": -1}, "max_steps must be at least 1"),
        ({"chunk_size": 0}, "chunk_size must be at least 1"),
        ({"parameterization": "wavelet"}, "parameterization must be one of pyramid, pixel, latent, found 'wavelet'"),
        ({"parameterization": "latent", "vae": "a/b", "channels": 1}, "channels=1 is not for parameterization="),
        ({"init": "real"}, "init must be one of noise, centroid, random"),
        ({"objective": "mse"}, "objective must be one of lgm, ridge, found 'mse'"),
        ({"objective": "ridge", "real_features": "online"}, "use real_features='cached'"),
        ({"label_learning_rate": -0.1}, "label_learning_rate can't be negative"),
        (
            {"objective": "lgm", "label_learning_rate": 0.1, "images_per_class": 2},
            "use objective='ridge' or cluster_classes=False",
        ),
        ({"real_features": "streamed"}, "real_features must be one of cached, online"),
        ({"growth_steps": 0}, "growth_steps must be at least 1, found 0"),
        ({"growth_share": 1.5}, "growth_share is a share of the run between 0 and 1, found 1.5"),
        ({"crop_scale": [0.5, 0.1]}, "crop_scale must be two areas"),
        ({"crop_scale": [0.5]}, "crop_scale must be two areas"),
        ({"probe_std": -1.0}, "probe_std can't be negative"),
        ({"protocol": "slow"}, "protocol must be one of fast, paper, found 'slow'"),
        ({"eval_strategy": "epoch"}, "There are no epochs"),
        ({"save_strategy": "best"}, "There are no epochs"),
    ],
)
def test_values_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        LGMConfig(**settings)


def test_the_papers_protocol_is_the_recipe(request):
    recipe = yaml.safe_load((request.config.rootpath / "hf_lgm" / "recipes" / "paper.yaml").read_text())
    of_models = {f.name: recipe.pop(f.name) for f in dataclasses.fields(ModelArguments) if f.name in recipe}
    assert of_models["image_mean"] == list(IMAGENET_MEAN) and of_models["image_std"] == list(IMAGENET_STD)
    assert of_models["resize_ratio"] == pytest.approx(DEFAULT_RESIZE_RATIO, abs=1e-9) and len(of_models) == 3
    assert LGMConfig.paper().own_settings() == LGMConfig(**recipe).own_settings()
    assert LGMConfig.paper().probe_protocol == LGMConfig(**recipe).probe_protocol == ProbeProtocol.named("paper")
    assert LGMConfig.paper(max_steps=7).max_steps == 7


def test_every_own_field_has_help():
    assert described_fields(LGMArguments).keys() == {f.name for f in dataclasses.fields(LGMArguments)}


def test_a_former_name_is_understood(caplog):
    assert LGMConfig(eval_protocol="paper").probe_protocol == ProbeProtocol.named("paper")
    assert "eval_protocol is called protocol now" in caplog.text


def test_own_settings_hold_what_decides_the_result_and_no_paths(tmp_path):
    settings = LGMConfig(output_dir=str(tmp_path), seed=3, logging_steps=7, chunk_size=5).own_settings()
    assert settings["seed"] == 3 and settings["learning_rate"] == LGMConfig.learning_rate
    assert not {"output_dir", "logging_steps", "chunk_size", "save_steps"} & set(settings)
    assert settings == LGMConfig(seed=3).own_settings()


def test_every_setting_decides_the_result_or_is_known_not_to():
    elsewhere = {f.name for f in dataclasses.fields(LGMArguments)} - set(DECIDING)
    assert elsewhere == {
        *(
            "output_dir",
            "chunk_size",
            "eval_seeds",
            "protocol",
            "eval_learning_rate",
            "hub_dataset_id",
            "eval_strategy",
        ),
        *("eval_steps", "eval_delay", "resume_from_checkpoint", "save_strategy", "save_steps", "save_total_limit"),
        "preview_steps",
        *("logging_steps", "logging_first_step", "report_to", "run_name", "project", "disable_tqdm", "push_to_hub"),
        *("hub_private_repo", "hub_token", "use_cpu"),
        *("per_device_eval_batch_size", "dataloader_num_workers", "ddp_backend", "ddp_timeout", "local_rank"),
    }
