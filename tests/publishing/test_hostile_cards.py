"""Every word of a set's JSON files is a stranger's: on our card it is text, and a literal in its code."""

import ast
import copy

import pytest
from cards import KINDS, check, hostile_cards, leaves
from strangers import HOSTILE, RESULTS

from hf_lgm.publishing.markdown import code, escaped, fenced, link, python, web_address


@pytest.mark.filterwarnings("ignore")  # of the card's library, about licences it does not know
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("every", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_each_word_in_turn(kind, every, record_property):
    counts = hostile_cards(kind, every)
    print(kind, counts)  # noqa: T201  (pytest -s)
    record_property("counts", counts)
    assert counts["cards"] > 1000 / every and counts["refused"] > 500 / every


def with_all(value, new):
    """A copy with all texts replaced, but for those that decide which rows stand in which table."""
    value = copy.deepcopy(value)
    for way in leaves(value):
        holder = value
        for step in way[:-1]:
            holder = holder[step]
        if isinstance(holder[way[-1]], str) and way[-1] not in ("metric", "training_set", "kind", "objective"):
            holder[way[-1]] = new
    return value


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_all_words_at_once(kind):
    render, config, _ = KINDS[kind]
    honest = render(with_all(config, "word"), with_all(RESULTS, "word"))
    for value in filter(str.strip, HOSTILE):
        check(render(with_all(config, value), with_all(RESULTS, value)), honest)


@pytest.mark.filterwarnings("ignore")
def test_names_of_settings_and_versions_are_words_too():
    render, config, _ = KINDS["set"]
    honest = render(
        {
            **config,
            "settings": {"word": "word", "init": "noise"},
            "changed_settings": ["word"],
            "versions": {"word": "1"},
        },
        RESULTS,
    )
    for value in filter(str.strip, HOSTILE):
        settings = {value: value, "init": "noise"}
        card = render(
            {**config, "settings": settings, "changed_settings": [value, "gone"], "versions": {value: value}}, RESULTS
        )
        check(card, honest)


@pytest.mark.parametrize("value", HOSTILE)
def test_a_literal_is_what_was_meant(value):
    assert "\n" not in python(value) and ast.literal_eval(python(value)) == value
    assert python(value).isprintable()


def test_other_literals():
    assert [python(value) for value in (True, None, 3, 0.5)] == ["True", "None", "3", "0.5"]
    assert [ast.literal_eval(python(value)) for value in (float("nan"), ["a"])] == ["nan", "['a']"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user/my_model-v1.0@16", "user/my_model-v1.0@16"),
        ("_a_ a__b", r"\_a\_ a\_\_b"),
        ("a\n\tb", "a b"),
        ("see https://x.y or www.x.y or a@b.c", r"see https\://x.y or www\.x.y or a\@b.c"),
        ("- a", r"\- a"),
        ("12. a", r"12\. a"),
        ("5.24.0", "5.24.0"),
        ("&lt;b&gt;", r"\&lt;b\&gt;"),
        ("\u202eabc\x00", "\ufffdabc\ufffd"),
    ],
)
def test_text_reads_as_it_is(text, expected):
    assert escaped(text) == expected and escaped(escaped(text)) == expected


def test_code_and_fences_are_longer_than_what_they_hold():
    assert [code(text) for text in ("a", "a`b", "`a``", "a|b", "")] == ["`a`", "``a`b``", "``` `a`` ```", r"a\|b", ""]
    assert fenced("a\n````\nb") == "`````\na\n````\nb\n`````"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://own.example/a?b=c&d=%20#e", "https://own.example/a?b=c&d=%20#e"),
        ("http://x/a b)(c]`<>", "http://x/a%20b%29%28c%5D%60%3C%3E"),
        ("javascript:alert(1)", None),
        ("JAVASCRIPT://x/%0aalert(1)", None),
        ("data:text/html,x", None),
        ("//evil.example", None),
        ("https:evil", None),
        ("LICENSE", None),
        ("http://[", None),
        ("https://a\nb", None),
        (None, None),
    ],
)
def test_only_addresses_of_the_web_are_links(address, expected):
    assert web_address(address) == expected
    assert link("a]", address) == (f"[a\\]]({expected.replace('&', '&amp;')})" if expected else r"a\]")
