"""Every setting of a distillation, documented once; free of torch, so that `--help` and mistakes answer at once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from .hub import check_repo_id
from .settings import (
    Channels,
    Initialization,
    Objective,
    Parameterization,
    ProbeProtocol,
    ProtocolName,
    RealFeatures,
    ViewSettings,
)
from .trackers import check_trackers
from .values import check_at_least, check_positive, convert_fields

# Fields of `TrainingArguments` that a user may look for, and what does their work here.
INSTEAD = {
    "num_train_epochs": "max_steps",
    "per_device_train_batch_size": "images_per_class and views_per_step, and chunk_size for memory",
    "gradient_accumulation_steps": "chunk_size: the gradient is exact however it is chunked",
    "auto_find_batch_size": "chunk_size",
    "optim": "learning_rate: the method is Adam's",
    "lr_scheduler_kwargs": "lr_scheduler_type: cosine, linear and the like need none",
    "fp16": "bf16",
    "data_seed": "seed: it decides the order of the data too",
    "load_best_model_at_end": "nothing: choosing by evaluation would select on the test images",
    "hub_model_id": "hub_dataset_id: the images are a dataset",
    "torch_compile": "nothing: compiling takes longer than it saves, where it saves anything",
    "deepspeed": "plain data parallelism: there are no weights to shard",
    "fsdp": "plain data parallelism: there are no weights to shard",
}

_VIEWS_PER_CHUNK = 128

# Steps between two of something; below one a share of the run, as in Transformers.
_STEPS = ("logging_steps", "save_steps", "eval_steps", "preview_steps")

# As Transformers' users say it.
_RESUME: dict[Any, str | None] = {True: "auto", "true": "auto", False: None, "false": None}


@dataclass
class LGMArguments:
    """The fields of [`LGMConfig`] that mean something for a distillation: its own, and those of `TrainingArguments`.

    `max_steps=300`, `learning_rate=0.02` and `views_per_step=10` were measured on CIFAR-10 (500 images per class, 96
    pixels) through MobileNetV1 0.25 and 0.5. Top-1 on the same backbone at a learning rate of 0.01: 53.5 and 57.4; at
    0.02: 55.0 and 59.0; on the first also 55.2 at 0.03 and 55.1 at 0.05, with transfer falling by up to four points.
    Twice the steps with half the views cost the same time and gave 53.9 at 0.01.

    Args:
        output_dir (`str`, *optional*, defaults to `"outputs/lgm"`): Where everything is written; of a command, where
            it is not given, a folder under outputs/ with dataset, backbone and images per class in its name.
        images_per_class (`int`, *optional*, defaults to 1): Images of each class.
        real_images_per_class (`int`, *optional*, defaults to 0): How many of these are real images that stay as they
            are: herding ones, whose mean is near the class mean. The others are learned to complete them, without
            clusters.
        max_steps (`int`, *optional*, defaults to 300): Optimisation steps.
        learning_rate (`float`, *optional*, defaults to 0.02): Adam's, on the image parameters.
        lr_scheduler_type (`str`, *optional*, defaults to `"warmup_stable_decay"`): How it falls, by Transformers'
            names: `warmup_stable_decay` means here constant for half of the run, then straight to zero; `constant`,
            `cosine`, `linear` and the like.
        views_per_step (`int`, *optional*, defaults to 10): Random views of each synthetic image in each step.
        objective (`str`, *optional*, defaults to `"ridge"`): `ridge`: natural gradients, and the loss of a closed-form
            ridge probe (see [`~hf_lgm.distillation.objectives.ridge_and_natural_gradient`]); `lgm`: linear gradient
            matching (the paper); in Python, a function of one's own is given to `LGMDistiller`.
        parameterization (`str`, *optional*, defaults to `"pyramid"`): `pyramid`: levels that join coarse to fine
            (paper, section 3.2); `pixel`: plain pixels; `latent`: what the autoencoder `vae` draws of learned latents.
        vae (`str`, *optional*): Its Hub id or folder: an `AutoencoderKL` or `AutoencoderTiny` of diffusers, such as
            madebyollin/taesd, or a pipeline with one.
        channels (`str` or `int`, *optional*, defaults to `"auto"`): 3: images in colour; 1: grey ones, a third of the
            numbers; `auto`: grey where the real images are, by a sample of them. An autoencoder draws in colour.
        growth_share (`float`, *optional*, defaults to 0.32): Share of the run in which the pyramid's levels are added.
        growth_steps (`int`, *optional*): Steps between two levels in place of that, the first after one step more, as
            in the paper's code: there 200.
        init (`str`, *optional*, defaults to `"centroid"`): What the images start from: `noise`, the real image nearest
            to its class mean (`centroid`), a `random` real image of the class, or an earlier set: its folder or Hub
            id; in Python, a set itself is given to `LGMDistiller`. Where images stand for clusters, `centroid` is the
            one nearest to the mean of the cluster; beside real images that stay, the next of herding; of a stream, one
            of the few images that are kept.
        init_weight (`float`, *optional*, defaults to 0.5): At every fifth of the run images go back towards what they
            began as: so much of it and the rest of what they are. At zero they never do. Needs another start than
            noise, for which it means nothing.
        view_sizes (`list[float]`, *optional*, defaults to `[0.5, 0.75, 1.0]`): Sides at which views are encoded, one
            of them drawn for each step: up to 8, multiples of the backbone's own side, of which those are used that
            it takes; above, sides in pixels. The smallest alone while a pyramid is coarse.
        layers (`int`, *optional*, defaults to 3): Feature spaces of a backbone that are matched besides its features:
            the means of the last blocks of its last so many stages, or of as many depths of a plain transformer.
        backbones_per_step (`int`, *optional*): Of several backbones, how many each step draws; all where not given.
        flip (`bool`, *optional*, defaults to `True`): Mirror half of the views; wrong for digits and text.
        crop_scale (`list[float]`, *optional*, defaults to `[0.08, 1.0]`): Smallest and largest area of a view, two
            shares of the image; `1 1` keeps all of it.
        bounded_crops (`bool`, *optional*, defaults to `True`): Keep views within the image; else, as in the paper's
            code, 14 % of them are wider or higher, with black beside it.
        noise_std (`float`, *optional*, defaults to 0.2): Standard deviation of the pixel noise that half of the views
            get, in units of [0, 1].
        noise_mean (`float`, *optional*, defaults to 0.0): Mean of that noise; 0.5 in the paper's first release.
        real_features (`str`, *optional*, defaults to `"cached"`): `cached`: the centre crops of all real images,
            encoded once, all of them in every step; `online`: a batch of random views in each step (the paper).
        balance_classes (`bool`, *optional*, defaults to `True`): Let cached classes count equally, however many images
            they have.
        cluster_classes (`bool`, *optional*, defaults to `True`): Let each of several images of a class stand for a
            cluster of its real images, as if these were classes; else nothing makes them differ but their start.
        label_learning_rate (`float`, *optional*, defaults to 0.0): Adam's, on the labels, which are then learned as
            distributions over classes and stored as `soft_label`; at zero they stay what they are.
        probe_std (`float`, *optional*, defaults to 0.01): Standard deviation of the random probe's weights. Zero
            matches class means alone, which is SFM (arXiv 2602.05391).
        chunk_size (`int`, *optional*): Synthetic images encoded at a time on each process; where not given, as many as
            fit into the memory of a GPU, and on a CPU as many as make 128 views. The result does not depend on it,
            memory does, and all chunks but one cost a second forward pass.
        eval_seeds (`int`, *optional*, defaults to 5): Probes that an accuracy is the mean of.
        protocol (`str`, *optional*, defaults to `"fast"`): How probes are trained. `fast`: cached views; `paper`:
            fresh views and the paper's learning rate. See [`ProbeProtocol`].
        eval_learning_rate (`float`, *optional*): Another learning rate of these probes than the protocol's.
        eval_strategy (`str`, *optional*, defaults to `"no"`): `steps`: evaluate on the way, which decides nothing.
        eval_steps (`float`, *optional*): Steps between two evaluations; `logging_steps` where not given.
        eval_delay (`float`, *optional*, defaults to 0): Steps before the first evaluation.
        resume_from_checkpoint (`str`, *optional*): A checkpoint's folder, or `auto`: the newest in `output_dir`, if
            any. Data and settings that decide the result must be the same, but for `max_steps`: with more of them a
            run is made longer.
        save_strategy (`str`, *optional*, defaults to `"steps"`): `steps`, or `no` for no checkpoints.
        save_steps (`float`, *optional*, defaults to 100): Steps between two checkpoints.
        save_total_limit (`int`, *optional*, defaults to 2): Checkpoints to keep, 0 for all; the oldest go first.
        logging_steps (`float`, *optional*, defaults to 10): Steps between two logged losses.
        logging_first_step (`bool`, *optional*, defaults to `False`): Log the first step too.
        preview_steps (`float`, *optional*, defaults to 0.025): Steps between two looks at the images on the way, or a
            share of the run below 1: each is a new preview.png, a frame of the time-lapse, and an image for
            TensorBoard.
        report_to (`list[str]`, *optional*, defaults to `["none"]`): Trackers: `tensorboard`, `wandb` and the like,
            `all` or `none`.
        run_name (`str`, *optional*): What trackers call the run.
        project (`str`, *optional*, defaults to `"huggingface"`): What Trackio calls the project.
        disable_tqdm (`bool`, *optional*): Show no progress bar.
        hub_dataset_id (`str`, *optional*): Repository `user/name` that `push_to_hub` publishes the images in.
        push_to_hub (`bool`, *optional*, defaults to `False`): Publish the images at the end of training.
        hub_private_repo (`bool`, *optional*): Whether a new repository is private; where not given, by the licence of
            the source.
        hub_token (`str`, *optional*): Access token; the one stored by `hf auth login` where not given.
        seed (`int`, *optional*, defaults to 42): Decides everything random.
        adam_beta1 (`float`, *optional*, defaults to 0.9): Of Adam, on images and labels.
        adam_beta2 (`float`, *optional*, defaults to 0.999): Likewise.
        adam_epsilon (`float`, *optional*, defaults to 1e-8): Likewise.
        bf16 (`bool`, *optional*): Precision of the backbone's weights, bfloat16 or float32; where not given, bfloat16
            on GPUs that have it. The objective is always computed in float32.
        use_cpu (`bool`, *optional*, defaults to `False`): Use no accelerator.
        per_device_eval_batch_size (`int`, *optional*, defaults to 64): Images per forward pass without gradient.
        dataloader_num_workers (`int`, *optional*, defaults to -1): Processes that decode images; -1: as many as cores
            beside a GPU, else none.
        ddp_backend (`str`, *optional*): How processes talk: `nccl`, `gloo` and the like.
        ddp_timeout (`int`, *optional*, defaults to 1800): Seconds that a process waits for the others.
        local_rank (`int`, *optional*, defaults to -1): Given by some launchers.

    Raises:
        ImportError: If a tracker is not installed.
        ValueError: If a value is of another type than its field, or out of its range.
    """

    output_dir: str = "outputs/lgm"
    images_per_class: int = 1
    real_images_per_class: int = 0
    max_steps: int = 300
    learning_rate: float = 2e-2
    lr_scheduler_type: str = "warmup_stable_decay"
    parameterization: Parameterization = "pyramid"
    vae: str | None = None
    channels: Channels = "auto"
    growth_share: float = 0.32
    growth_steps: int | None = None
    init: str = "centroid"
    init_weight: float = 0.5
    views_per_step: int = 10
    view_sizes: list[float] = field(default_factory=lambda: [0.5, 0.75, 1.0])
    layers: int = 3
    backbones_per_step: int | None = None
    flip: bool = True
    crop_scale: list[float] = field(default_factory=lambda: [0.08, 1.0])
    bounded_crops: bool = True
    noise_std: float = 0.2
    noise_mean: float = 0.0
    real_features: RealFeatures = "cached"
    balance_classes: bool = True
    cluster_classes: bool = True
    objective: Objective = "ridge"
    label_learning_rate: float = 0.0
    probe_std: float = 0.01
    chunk_size: int | None = None
    eval_seeds: int = 5
    protocol: ProtocolName = "fast"
    eval_learning_rate: float | None = None
    hub_dataset_id: str | None = None
    eval_strategy: str = "no"
    eval_steps: float | None = None
    eval_delay: float = 0
    resume_from_checkpoint: str | None = None
    save_strategy: str = "steps"
    save_steps: float = 100
    save_total_limit: int | None = 2
    logging_steps: float = 10
    logging_first_step: bool = False
    preview_steps: float = 0.025
    report_to: list[str] = field(default_factory=lambda: ["none"])
    run_name: str | None = None
    project: str = "huggingface"
    disable_tqdm: bool | None = None
    push_to_hub: bool = False
    hub_private_repo: bool | None = None
    hub_token: str | None = None
    seed: int = 42
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    bf16: bool | None = None
    use_cpu: bool = False
    per_device_eval_batch_size: int = 64
    dataloader_num_workers: int = -1
    ddp_backend: str | None = None
    ddp_timeout: int = 1800
    local_rank: int = -1

    def __post_init__(self) -> None:
        if isinstance(self.resume_from_checkpoint, (str, bool)):
            self.resume_from_checkpoint = _RESUME.get(self.resume_from_checkpoint, self.resume_from_checkpoint)
        if hasattr(self.init, "from_pretrained"):
            raise ValueError("init is a word, a folder or a Hub id here: a set goes to LGMDistiller(…, init=set).")
        if callable(self.objective):
            known = " or ".join(get_args(Objective))
            raise ValueError(f"objective is {known} here: a function goes to LGMDistiller(…, objective=function).")
        convert_fields(self, LGMArguments)
        self._check_values()
        self._check_choices()
        self._check_init()

    @property
    def default_chunk_size(self) -> int:
        """Images encoded at a time where nothing says how many fit, as on a CPU: for the speed as good as any."""
        return max(1, _VIEWS_PER_CHUNK // self.views_per_step)

    @property
    def kept_checkpoints(self) -> int:
        """How many are on the disk at the end of a run."""
        if self.save_strategy == "no":
            return 0
        every = self.save_steps if self.save_steps >= 1 else self.save_steps * self.max_steps
        return self.save_total_limit or max(1, int(self.max_steps // max(1, every)))

    @property
    def kept_of_stream(self) -> int:
        """Images of each class that are kept of a stream: to begin with, and to show."""
        return max(5, self.images_per_class)

    @property
    def has_clusters(self) -> bool:
        """Whether several images of a class are told apart, each by a cluster of its real images."""
        can_have = self.images_per_class > 1 and self.real_images_per_class == 0 and self.real_features == "cached"
        return self.cluster_classes and can_have

    @property
    def learned_per_class(self) -> int:
        """How many images of each class are learned."""
        return self.images_per_class - self.real_images_per_class

    @property
    def begins_with_set(self) -> bool:
        """Whether `init` is an earlier set's folder or Hub id."""
        return self.init not in get_args(Initialization)

    @property
    def probe_protocol(self) -> ProbeProtocol:
        """How probes are trained that the images are evaluated by."""
        return ProbeProtocol.named(self.protocol, self.eval_learning_rate, self.eval_seeds)

    @property
    def views(self) -> ViewSettings:
        """How views of the synthetic images are made."""
        areas: Any = self.crop_scale
        return ViewSettings(
            self.flip,
            areas,
            noise_std=self.noise_std,
            noise_mean=self.noise_mean,
            bounded_crops=self.bounded_crops,
        )

    def check_streaming(self) -> None:
        """Refuse settings that need the real images more than once.

        Raises:
            ValueError: If there is one.
        """
        for name, wanted in (("real_features", "cached"), ("real_images_per_class", 0)):
            if getattr(self, name) != wanted:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} needs the real images again, and a stream is read once: use "
                    f"{name}={wanted!r}, or do not stream the dataset."
                )

    def _check_values(self) -> None:
        check_at_least(
            self, 1, "images_per_class", "views_per_step", "max_steps", "eval_seeds", "chunk_size", "growth_steps"
        )
        check_at_least(self, 1, "backbones_per_step")
        check_at_least(self, 1, "per_device_eval_batch_size", "ddp_timeout")
        check_at_least(self, 0, "noise_std", "probe_std", "learning_rate", "label_learning_rate", "seed")
        check_at_least(self, 0, "eval_delay", "save_total_limit", "layers")
        check_at_least(self, -1, "dataloader_num_workers", "local_rank")
        check_positive(self, "adam_epsilon", "eval_learning_rate", "view_sizes")
        check_positive(self, *_STEPS)
        for name in _STEPS:
            value = getattr(self, name)
            if value is not None and value > 1 and value != int(value):
                raise ValueError(f"{name} must be a whole number, or a share of the run below 1, found {value:g}.")
        for name in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, found {getattr(self, name):g}.")
        if self.push_to_hub and not self.hub_dataset_id:
            raise ValueError("push_to_hub needs to know where to: set hub_dataset_id to 'user/name'.")
        if self.hub_dataset_id is not None:
            check_repo_id(self.hub_dataset_id)
        if not 0 <= self.real_images_per_class < self.images_per_class:
            raise ValueError(
                f"real_images_per_class={self.real_images_per_class} must be at least 0 and below images_per_class="
                f"{self.images_per_class}: the others of a class are learned."
            )
        if not 0 <= self.growth_share <= 1:
            raise ValueError(f"growth_share is a share of the run between 0 and 1, found {self.growth_share}.")
        if not 0 <= self.init_weight <= 1:
            raise ValueError(f"init_weight is a share of the images between 0 and 1, found {self.init_weight}.")
        _ = self.views  # refuses crops
        check_trackers(self.report_to)

    def _check_choices(self) -> None:
        if not {self.eval_strategy, self.save_strategy} <= {"no", "steps"}:
            raise ValueError(
                "There are no epochs and nothing is selected: eval_strategy and save_strategy are no or steps."
            )
        if (self.parameterization == "latent") != (self.vae is not None):
            raise ValueError(
                "parameterization='latent' and vae belong together: the autoencoder that draws the images, such as "
                "madebyollin/taesd."
            )
        if self.parameterization == "latent" and self.channels == 1:
            raise ValueError("channels=1 is not for parameterization='latent': an autoencoder draws in colour.")
        if self.has_clusters and self.objective == "lgm" and self.label_learning_rate:
            raise ValueError(
                "With several images per class the labels that lgm matches are clusters: to learn soft labels too, "
                "use objective='ridge' or cluster_classes=False."
            )
        if self.objective == "ridge" and self.real_features != "cached":
            raise ValueError(
                "objective='ridge', the default, scores its probe on all real features: use real_features='cached' "
                "or objective='lgm'."
            )

    def _check_init(self) -> None:
        if self.begins_with_set and "/" not in self.init and not Path(self.init).expanduser().is_dir():
            words = ", ".join(get_args(Initialization))
            raise ValueError(
                f"init must be one of {words}, or an earlier set (a folder or 'user/name'), found {self.init!r}."
            )
