"""Which fields of `TrainingArguments` mean something for a distillation, and what stands in for the others."""

import dataclasses
from typing import Any

from transformers import TrainingArguments

# Inherited fields that do what Transformers documents; bf16 and torch_compile are about the backbone.
HONOURED = (
    "output_dir",
    "max_steps",
    "learning_rate",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "seed",
    "bf16",
    "torch_compile",
    "torch_compile_backend",
    "torch_compile_mode",
    "use_cpu",
    "logging_steps",
    "logging_first_step",
    "eval_strategy",
    "eval_steps",
    "eval_delay",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "report_to",
    "run_name",
    "project",
    "disable_tqdm",
    "per_device_eval_batch_size",
    "dataloader_num_workers",
    "resume_from_checkpoint",
    "ddp_backend",
    "ddp_timeout",
    "local_rank",
    "push_to_hub",
    "hub_private_repo",
    "hub_token",
)

INSTEAD = {
    "num_train_epochs": "max_steps",
    "per_device_train_batch_size": "images_per_class and views_per_step, and chunk_size for memory",
    "gradient_accumulation_steps": "chunk_size: the gradient is exact however it is chunked",
    "auto_find_batch_size": "chunk_size",
    "optim": "learning_rate: the method is Adam's",
    "lr_scheduler_type": "learning_rate: it is constant",
    "fp16": "bf16",
    "data_seed": "seed: it decides the order of the data too",
    "load_best_model_at_end": "nothing: choosing by evaluation would select on the test images",
    "hub_model_id": "hub_dataset_id: the images are a dataset",
    "deepspeed": "plain data parallelism: there are no weights to shard",
    "fsdp": "plain data parallelism: there are no weights to shard",
}


def ignored_fields() -> dict[str, Any]:
    """Inherited fields that may not be moved from their default, with that default."""
    return {f.name: default_of(f) for f in dataclasses.fields(TrainingArguments) if f.name not in HONOURED}


def default_of(of: dataclasses.Field) -> Any:
    """The value that a field has where none is given."""
    return of.default if of.default_factory is dataclasses.MISSING else of.default_factory()


def parent_fields() -> set[str]:
    """The names of all that is inherited."""
    return {f.name for f in dataclasses.fields(TrainingArguments)}
