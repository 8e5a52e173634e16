"""A page to look at sets of images, in one HTML file that asks nothing of any server.

hf-lgm gallery outputs/demo --model demo-vit                       # the demo's set
hf-lgm gallery SET_A SET_B --static gallery.html                   # side by side
hf-lgm gallery SET --model MODEL --dataset PATH_OR_ID --app        # in the browser, by Gradio
hf-lgm gallery SET --space user/name                               # a Space of the Hub
"""

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..hub import check_repo_id
from .arguments import DEFAULT_DATASET, DataArguments, ModelArguments, ReadingArguments
from .parsing import parse_arguments, prepare_torch, run_command, with_name_of_sets
from .terminal import say

if TYPE_CHECKING:
    from ..gallery.data import ShownSet


@dataclass
class GalleryArguments:
    """What is shown, and where.

    Args:
        sets (`list[str]`): Sets to look at, side by side: folders or Hub ids. They may stand before all flags, without
            --sets.
        static (`str`, *optional*): The HTML file to write; where nothing else is asked for outputs/NAME-gallery.html.
        app (`bool`, *optional*, defaults to `False`): Show the page by Gradio, until the command is stopped.
        space (`str`, *optional*): A Space user/name to publish the page in, or a folder to write it to: ./user/name
            is one.
        private (`bool`, *optional*): Whether a new Space is private; where not given, by the licence of the source.
        include_source_images (`bool`, *optional*, defaults to `False`): Show real images too; otherwise their rows in
            the source are named.
    """

    sets: list[str] = field(default_factory=list)
    static: str | None = None
    app: bool = False
    space: str | None = None
    private: bool | None = None
    include_source_images: bool = False

    def __post_init__(self) -> None:
        if not self.sets:
            raise ValueError("--sets names what to look at: folders of `distill` or `baselines`, or Hub ids.")
        if self.space is not None and not self.space_is_folder:
            check_repo_id(self.space)

    @property
    def space_is_folder(self) -> bool:
        """Whether the Space is written here."""
        return self.space is not None and (self.space.startswith((".", "/", "~")) or self.space.count("/") != 1)


def main() -> None:
    """Load, look, write, say where it is."""
    types = (ModelArguments, DataArguments, ReadingArguments, GalleryArguments)
    model_args, data_args, args, gallery_args = parse_arguments(types, __doc__ or "", with_name_of_sets(sys.argv[1:]))
    _check_relations(model_args, data_args)
    prepare_torch()  # up to here nothing heavy is loaded, so that mistakes are answered at once

    from ..gallery.app import check_can_launch
    from ..gallery.data import ShownSet, check_classes, page_data
    from ..gallery.growth import growth_of
    from ..gallery.page import check_is_ours, render_page
    from ..gallery.space import check_space_folder
    from . import inputs

    sets = inputs.load_sets(gallery_args.sets)
    static = _static_file(gallery_args, next(iter(sets)))
    if static is not None:
        check_is_ours(static)
    if gallery_args.space_is_folder:
        check_space_folder(Path(gallery_args.space or "").expanduser())
    if gallery_args.app:
        check_can_launch()
    folders = dict(zip(sets, gallery_args.sets, strict=True))
    shown = [ShownSet(name, images, growth_of(folders[name], images)) for name, images in sets.items()]
    check_classes(shown)
    seen = None
    if model_args.model:
        shown, seen = _look(shown, model_args, data_args, args, gallery_args.include_source_images)
    page = render_page(page_data(shown, seen, gallery_args.include_source_images))
    _show(page, shown, gallery_args, static)


def _check_relations(model_args: ModelArguments, data_args: DataArguments) -> None:
    """Refuse what relations to real images can't be had from."""
    models = model_args.model
    if len(models) > 1:
        raise ValueError(f"Expected one --model to look through, found {len(models)}: {', '.join(models)}.")
    if not models and data_args.dataset is None:
        return
    if data_args.choose(models) == DEFAULT_DATASET and data_args.dataset is None:
        raise ValueError("--model needs a --dataset: the real images that the set was made of.")
    if data_args.streaming:
        raise ValueError("--streaming: the page names rows of real images, and a stream is read once: leave it out.")


def _look(
    shown: "list[ShownSet]",
    model_args: ModelArguments,
    data_args: DataArguments,
    args: ReadingArguments,
    include_source_images: bool,
) -> "tuple[list[ShownSet], dict[str, Any]]":
    """The sets with what one backbone says of them, and what the page calls backbone and data."""
    from ..evaluation.baselines import with_source_images
    from ..gallery.relations import relations_of
    from . import inputs

    dataset = data_args.choose(model_args.model)
    extractor = inputs.feature_extractor(args)
    backbones = inputs.load_backbones(model_args, model_args.model)
    train_images, eval_images = inputs.load_data(data_args, dataset, backbones, args)
    found = []
    for each in shown:
        images = with_source_images(each.images, train_images)
        real = backbones[0], train_images, eval_images, extractor, include_source_images
        found.append(dataclasses.replace(each, images=images, relations=relations_of(images, *real)))
    seen = {"model": backbones[0].name, "dataset": data_args.name_of(dataset), "split": data_args.train_split}
    return found, seen


def _static_file(args: GalleryArguments, name: str) -> Path | None:
    """The file to write; none where the page goes elsewhere alone."""
    if args.static is not None:
        return Path(args.static).expanduser()
    return None if args.app or args.space else Path("outputs") / f"{Path(name).name}-gallery.html"


def _show(page: str, shown: "list[ShownSet]", args: GalleryArguments, static: Path | None) -> None:
    """Write, publish and launch what is asked for."""
    from ..gallery.app import launch
    from ..gallery.space import push_space, write_space

    if static is not None:
        static.parent.mkdir(parents=True, exist_ok=True)
        static.write_text(page, encoding="utf-8")
        say(f"Look at:   {static}")
    if args.space is not None and args.space_is_folder:
        say(f"Look at:   {write_space(Path(args.space).expanduser(), page, shown)}/index.html")
    elif args.space is not None:
        say(f"Published: {push_space(args.space, page, shown, args.private)}")
    if args.app:
        launch(page, " and ".join(each.name for each in shown))


if __name__ == "__main__":
    run_command(main)
