"""Cards of hostile files, and a card as parsers see it."""

import ast
import re
from collections import Counter

import yaml
from markdown_it import MarkdownIt
from strangers import CONFIG, HOSTILE, INFO, RESULTS, places, replaced

from hf_lgm.publishing.card import render_probe_card, render_set_card
from hf_lgm.publishing.markdown import web_address
from hf_lgm.publishing.schema import check_config, check_probe_config, check_results

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
OUR_LINKS = ("https://arxiv.org/abs/2511.16674", "https://huggingface.co/", "https://own")
OF_PROBE = {
    "class_names": ["a", "b"],
    "num_images": 6,
    "probe": "probe: 10 epochs",
    "license": "mit",
    "is_native": False,
}
PROBE_BACKBONE = {**CONFIG["backbone"], "name": "user/model", "source": "user/model"}
PROBE = {**CONFIG, **OF_PROBE, "artifact": "probe", "backbone": PROBE_BACKBONE}
# Metadata that is left out where a name is no Hub id, or an address none of the web.
MAY_BE_LEFT_OUT = {"source_datasets", "license_link", "license_name", "base_model", "datasets", "model-index"}


def set_card(config, results, lacks_images=True):
    info = {**INFO, "num_real_images": 3, "num_without_image": 3} if lacks_images else INFO
    return render_set_card({**config, "dataset_info": info}, results, "user/set", shows_comparison=True)


def probe_card(config, results):
    return render_probe_card(config, results, "user/probe")


def anatomy(card):
    """A card as parsers see it: its metadata, the kinds of its blocks, of what stands in lines, its links and code."""
    _, metadata, text = re.split("^---\n", card, maxsplit=2, flags=re.MULTILINE)
    tokens = MARKDOWN.parse(text)
    inline = [child for token in tokens for child in token.children or []]
    links = [token.attrs["href"] for token in inline if token.type == "link_open"]
    pictures = [token.attrs["src"] for token in inline if token.type == "image"]
    (snippet,) = [token.content for token in tokens if token.type == "fence" and token.info == "python"]
    kinds = {token.type for token in [*tokens, *inline]}
    return yaml.safe_load(metadata), [token.type for token in tokens], kinds, links, pictures, snippet


def shape_of_code(snippet):
    """Its statements, names and calls, without the values of its literals; a revision goes with a Hub id."""
    tree = ast.parse(snippet)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            node.value = None
        if isinstance(node, ast.Call):
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "revision"]
    return ast.dump(tree)


def check(card, honest):
    """Nothing of a hostile card is other than in the honest one, but for words."""
    metadata, blocks, kinds, links, pictures, snippet = anatomy(card)
    of_honest = anatomy(honest)
    assert set(of_honest[0]) - MAY_BE_LEFT_OUT <= set(metadata) <= set(of_honest[0]) | MAY_BE_LEFT_OUT
    assert {"html_block", "html_inline"} & kinds == set()
    assert blocks == of_honest[1]
    assert pictures == of_honest[4]
    assert all(link.startswith(OUR_LINKS) or web_address(link) == link for link in links), links
    assert not any("pwned" in link for link in links if link.startswith("https://huggingface.co"))
    assert shape_of_code(snippet) == shape_of_code(of_honest[5])
    for block in MARKDOWN.parse(re.split("^---\n", card, maxsplit=2, flags=re.MULTILINE)[2]):
        assert block.type != "heading_open" or block.tag in ("h1", "h2")


def leaves(value):
    for way in places(value):
        holder = value
        for step in way:
            holder = holder[step]
        if not isinstance(holder, (dict, list)):
            yield way


def check_set(config, results):
    check_config(config)
    check_results(results)


def check_probe(config, results):
    check_probe_config(config)
    check_results(results)


KINDS = {"set": (set_card, CONFIG, check_set), "probe": (probe_card, PROBE, check_probe)}


def of_each_word(kind, every=1):
    """Both files with one value replaced by a hostile one, and by an honest word, each in turn; one of so many."""
    _, config, _ = KINDS[kind]
    combinations = [
        (number, way, value)
        for number, whole in enumerate((config, RESULTS))
        for way in leaves(whole)
        for value in HOSTILE
    ]
    for number, way, value in combinations[::every]:
        hostile, honest = [config, RESULTS], [config, RESULTS]
        hostile[number], honest[number] = (replaced(hostile[number], way, new) for new in (value, "word"))
        yield way, value, hostile, honest


def hostile_cards(kind, every=1):
    """Check the cards of all of these; how many there were, and how many files were refused."""
    render, _, check_both = KINDS[kind]
    counts = Counter()
    for _, value, hostile, honest in of_each_word(kind, every):
        try:
            check_both(*hostile)
        except ValueError as error:
            assert "\n" not in str(error)
            counts["refused"] += 1
            continue
        counts["cards"] += 1
        card = render(*hostile)
        if value.strip():
            check(card, render(*honest))
        else:  # a page is shorter where nothing is said
            anatomy(card)
    return dict(counts)
