"""Publish a set, or the probe trained on it, on the Hub: files, card and tag in one commit.

hf-lgm publish --folder outputs/demo --repo_id user/name --tag v1.0
hf-lgm publish --folder outputs/demo --repo_id user/name-probe --probe    # an image classifier
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..demo import DEMO_MODELS
from ..hub import check_repo_id, check_tag
from ..publishing.licenses import check_license
from .parsing import parse_arguments, prepare_torch, run_command
from .terminal import say

if TYPE_CHECKING:
    from ..backbones.backbone import FrozenBackbone
    from ..publishing.distilled_set import DistilledSet


@dataclass
class PublishArguments:
    """What goes where.

    Args:
        folder (`str`): Folder that `distill` or `baselines` wrote.
        repo_id (`str`, *optional*): Repository 'user/name' to publish in.
        private (`bool`, *optional*): Whether a new repository is private; where not given, by the licence of the
            source.
        tag (`str`, *optional*): Tag of the commit, such as v1.0.
        overwrite (`bool`, *optional*, defaults to `False`): Replace whatever else the repository holds.
        results (`str`, *optional*): results.json of `evaluate`, where the card should show that table.
        license (`str`, *optional*): Licence for the card, such as cc-by-4.0.
        license_name (`str`, *optional*): Its name, where --license is other.
        license_link (`str`, *optional*): Its address, where --license is other.
        include_source_images (`bool`, *optional*, defaults to `False`): Publish real images too: those of a baseline,
            those that stay beside learned ones, and comparison.png.
        probe (`bool`, *optional*, defaults to `False`): Train the probe, and publish it as an image classifier of
            Transformers.
        model (`str`, *optional*): Backbone of the probe, where it was a folder; the set's own where not given.
        output_dir (`str`, *optional*): Where to write what is published as well; without --repo_id nothing else
            happens.
    """

    folder: str = ""
    repo_id: str | None = None
    private: bool | None = None
    tag: str | None = None
    overwrite: bool = False
    results: str | None = None
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    include_source_images: bool = False
    probe: bool = False
    model: str | None = None
    output_dir: str | None = None

    def __post_init__(self) -> None:
        if not self.folder or not (self.repo_id or self.output_dir):
            raise ValueError(
                "Expected --folder FOLDER, and --repo_id USER/NAME to publish or --output_dir to look first."
            )
        if self.repo_id is not None:
            check_repo_id(self.repo_id)
        if self.tag is not None:
            check_tag(self.tag)
        check_license(self.license, self.license_name, self.license_link)


def main() -> None:
    """Read the folder, publish, say how it is loaded."""
    (args,) = parse_arguments((PublishArguments,), __doc__ or "", sys.argv[1:])
    prepare_torch()  # up to here nothing heavy is loaded, so that mistakes are answered at once

    from ..distillation.output_folder import PROBE_FILES, SET_FILES, check_is_ours
    from ..evaluation.probe_model import ProbeModel
    from ..publishing.distilled_set import DistilledSet
    from ..publishing.files import COMPARISON_FILE, MAX_FIGURE_BYTES, check_files

    if args.output_dir:
        if Path(args.output_dir).expanduser().resolve() == Path(args.folder).expanduser().resolve():
            raise ValueError(f"--output_dir: '{args.output_dir}' is what is read here: give another folder.")
        check_is_ours(args.output_dir, (*SET_FILES, *PROBE_FILES))
    distilled = DistilledSet.from_pretrained(args.folder)
    _add_flags(distilled, args)
    where: dict[str, Any] = {"private": args.private, "tag": args.tag, "overwrite": args.overwrite}
    to_publish: DistilledSet | ProbeModel = distilled
    if args.probe:
        to_publish = ProbeModel.train_on(_backbone(distilled, args.model), distilled, args.license)
    else:
        comparison = Path(args.folder).expanduser() / COMPARISON_FILE
        check_files(args.folder, comparison.parent, {COMPARISON_FILE: MAX_FIGURE_BYTES})
        where["include_source_images"] = args.include_source_images
        where["comparison"] = comparison if comparison.is_file() else None
    if args.output_dir:
        shown = to_publish if isinstance(to_publish, ProbeModel) else distilled.to_publish(args.include_source_images)
        say(f"Look at:   {shown.save_pretrained(args.output_dir, repo_id=args.repo_id)}/README.md")
    if args.repo_id:
        say(f"Published: {to_publish.push_to_hub(args.repo_id, **where)}")
    name = args.repo_id or args.output_dir
    revision = f', revision="{args.tag}"' if args.tag else ""
    usage = f'datasets.load_dataset("{name}"{revision})'
    if isinstance(to_publish, ProbeModel):
        usage = to_publish.usage(name)
    say(f"Use:       {usage}")


def _add_flags(distilled: "DistilledSet", args: PublishArguments) -> None:
    """What the flags say of the set, into its configuration and results."""
    if args.results:
        distilled.results = _results(Path(args.results).expanduser())
        distilled.config["training_set"] = Path(args.folder).name  # as `evaluate` calls it
    if args.license and not args.probe:
        source = distilled.config.setdefault("source", {})
        source.pop("license_declared_by", None)
        given = {"license": args.license, "license_name": args.license_name, "license_link": args.license_link}
        source |= {name: value for name, value in given.items() if value}


def _results(path: Path) -> list[dict[str, Any]]:
    """The rows of a table that `evaluate` wrote."""
    from ..publishing.files import read_json
    from ..publishing.schema import check_results

    if not path.is_file():
        raise FileNotFoundError(f"--results: there is no file '{path}'.")
    found = read_json(path, list)
    check_results(found, path.name)
    return found


def _backbone(distilled: "DistilledSet", name: str | None) -> "FrozenBackbone":
    """The backbone that a set was made through, as it was."""
    from ..backbones.backbone import FrozenBackbone
    from ..publishing.provenance import is_hub_id

    made = distilled.config.get("backbone", {})
    said = str(made.get("name", "")).partition("@")[0]
    if name is None and not said:
        raise ValueError("The set does not say what it was made through: name it with --model.")
    # A set may be a stranger's, and a model of this machine that it names would be published as part of the probe.
    if name is None and not (said in DEMO_MODELS or (is_hub_id(said) and not Path(said).exists())):
        raise ValueError(f"The set was made through '{said}', a folder of its maker: name it with --model.")
    return FrozenBackbone.from_pretrained(
        name or said,
        image_size=made.get("image_size"),
        resize_ratio=made.get("resize_ratio"),
        image_mean=made.get("mean"),
        image_std=made.get("std"),
        feature_pooling=made.get("pooling"),
        revision=None if name else made.get("revision"),
    )


if __name__ == "__main__":
    run_command(main)
