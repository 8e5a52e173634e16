"""Publish a set, or the probe trained on it, on the Hub: files, card and tag in one commit.

python scripts/publish.py --folder outputs/demo --repo_id user/name --tag v1.0
python scripts/publish.py --folder outputs/demo --repo_id user/name-probe --probe    # an image classifier
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from hf_lgm import DistilledSet, FrozenBackbone
from hf_lgm.cli import parse_arguments, run_script
from hf_lgm.probe_model import ProbeModel
from hf_lgm.set_files import COMPARISON_FILE


@dataclass
class PublishArguments:
    """What goes where."""

    folder: str = field(default="", metadata={"help": "Folder that distill.py or baselines.py wrote."})
    repo_id: str | None = field(default=None, metadata={"help": "Repository 'user/name' to publish in."})
    private: bool | None = field(
        default=None,
        metadata={"help": "Whether a new repository is private; where not given, by the licence of the source."},
    )
    tag: str | None = field(default=None, metadata={"help": "Tag of the commit, such as v1.0."})
    overwrite: bool = field(default=False, metadata={"help": "Replace whatever else the repository holds."})
    results: str | None = field(
        default=None, metadata={"help": "results.json of evaluate.py, where the card should show that table."}
    )
    license: str | None = field(default=None, metadata={"help": "Licence for the card, such as cc-by-4.0."})
    license_name: str | None = field(default=None, metadata={"help": "Its name, where --license is other."})
    license_link: str | None = field(default=None, metadata={"help": "Its address, where --license is other."})
    include_source_images: bool = field(
        default=False, metadata={"help": "Publish real images too: those of a baseline, and comparison.png."}
    )
    probe: bool = field(
        default=False, metadata={"help": "Train the probe, and publish it as an image classifier of Transformers."}
    )
    model: str | None = field(
        default=None, metadata={"help": "Backbone of the probe, where it was a folder; the set's own."}
    )
    output_dir: str | None = field(
        default=None,
        metadata={"help": "Where to write what is published as well; without --repo_id nothing else happens."},
    )


def main() -> None:
    """Read the folder, publish, say how it is loaded."""
    (args,) = parse_arguments((PublishArguments,), __doc__, sys.argv[1:])
    if not args.folder or not (args.repo_id or args.output_dir):
        raise ValueError("Expected --folder FOLDER, and --repo_id USER/NAME to publish or --output_dir to look first.")
    distilled = DistilledSet.from_pretrained(args.folder)
    add_flags(distilled, args)
    where = {"private": args.private, "tag": args.tag, "overwrite": args.overwrite}
    if args.probe:
        to_publish = ProbeModel.train(distilled, backbone(distilled, args.model), args.license)
    else:
        to_publish = distilled
        comparison = Path(args.folder) / COMPARISON_FILE
        where["include_source_images"] = args.include_source_images
        where["comparison"] = comparison if comparison.is_file() else None
    if args.output_dir:
        print(f"Look at:   {to_publish.save_pretrained(args.output_dir, repo_id=args.repo_id)}/README.md")
    if args.repo_id:
        print(f"Published: {to_publish.push_to_hub(args.repo_id, **where)}")
    name = args.repo_id or args.output_dir
    revision = f', revision="{args.tag}"' if args.tag else ""
    usage = to_publish.usage(name) if args.probe else f'datasets.load_dataset("{name}"{revision})'
    print(f"Use:       {usage}")


def add_flags(distilled: DistilledSet, args: PublishArguments) -> None:
    """What the flags say of the set, into its configuration and results."""
    if args.results:
        distilled.results = json.loads(Path(args.results).read_text(encoding="utf-8"))
        distilled.config["training_set"] = Path(args.folder).name  # as evaluate.py calls it
    if args.license and not args.probe:
        source = distilled.config.setdefault("source", {})
        source.pop("license_declared_by", None)
        given = {"license": args.license, "license_name": args.license_name, "license_link": args.license_link}
        source |= {name: value for name, value in given.items() if value}


def backbone(distilled: DistilledSet, name: str | None) -> FrozenBackbone:
    """The backbone that a set was made through, as it was."""
    made = distilled.config.get("backbone", {})
    if name is None and not made.get("name"):
        raise ValueError("The set does not say what it was made through: name it with --model.")
    return FrozenBackbone.from_pretrained(
        name or made["name"].partition("@")[0],
        image_size=made.get("image_size"),
        resize_ratio=made.get("resize_ratio"),
        image_mean=made.get("mean"),
        image_std=made.get("std"),
        feature_pooling=made.get("pooling"),
        revision=None if name else made.get("revision"),
    )


if __name__ == "__main__":
    run_script(main)
