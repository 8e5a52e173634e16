"""What `--help` shows, what is meant by a flag that is none, and the commands by their names."""

import argparse
import sys
from collections import Counter

import pytest
from test_flags import COMMANDS

import hf_lgm
from hf_lgm.arguments import LGMArguments
from hf_lgm.cli import main as front
from hf_lgm.cli.arguments import DataArguments, ModelArguments
from hf_lgm.cli.config_files import RECIPES, config_path
from hf_lgm.cli.distill import OF_DEMO, RunArguments
from hf_lgm.cli.help import GROUPS
from hf_lgm.cli.parsing import parse_arguments
from hf_lgm.values import types_of

GROUPED = [name for lists in GROUPS.values() for names in lists for name in names.split()]


def shown(command, flag, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_arguments(COMMANDS[command], "What it does.", [flag])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_flag_is_in_one_group_and_described(command, capsys):
    text = shown(command, "--help-all", capsys)
    flags = {name for kind in COMMANDS[command] for name in types_of(kind)}
    assert flags <= set(GROUPED) and max(Counter(GROUPED).values()) == 1
    lines = text.splitlines()
    for name in flags:
        (number,) = [number for number, line in enumerate(lines) if line.split()[:1] == [f"--{name}"]]
        assert len(lines[number + 1].strip()) > 5 and lines[number + 1].startswith("      "), name
    assert "besides:" not in text and "`" not in text and "None" not in text


def test_no_group_names_a_flag_that_there_is_not():
    known = {name for kinds in COMMANDS.values() for kind in kinds for name in types_of(kind)}
    assert set(GROUPED) - known == {"config", "verbose"}


def test_help_shows_what_matters_first_and_how_many_there_are(capsys):
    few, many = shown("distill", "--help", capsys), shown("distill", "--help-all", capsys)
    assert 18 <= few.count("\n  --") <= 26 and few.count("\n") < 100
    assert f"--help-all shows all {many.count(chr(10) + '  --')} flags." in few
    assert few.startswith("usage: ") and "What it does." in few and max(map(len, few.splitlines())) <= 100
    assert shown("publish", "--help", capsys) == shown("publish", "--help-all", capsys)  # it has few


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--ipc", "images_per_class"),
        ("--steps", "max_steps"),
        ("--lr", "learning_rate"),  # and not the beginning of lr_scheduler_type
        ("--backbone", "model"),
        ("--max_stpes", "max_steps"),
        ("--out", "output_dir"),
    ],
)
def test_did_you_mean(typed, meant):
    with pytest.raises(ValueError, match=rf"'{typed}' is no flag. Did you mean --{meant}\?"):
        parse_arguments(COMMANDS["distill"], "", [typed, "3"])


def test_nothing_is_meant_by_what_is_like_nothing():
    with pytest.raises(ValueError, match="'--xyzzy' is no flag. --help lists them all."):
        parse_arguments(COMMANDS["distill"], "", ["--xyzzy"])


def test_recipes_by_name_and_files_by_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_path("food-101") == config_path("recipes/food-101.yaml") == RECIPES / "food-101.yaml"
    (tmp_path / "food-101").write_text("seed: 1")
    assert config_path("food-101").read_text() == "seed: 1"  # the user's own goes first
    with pytest.raises(FileNotFoundError, match="no recipe of this name. Did you mean waterbirds?"):
        config_path("water-birds")
    with pytest.raises(FileNotFoundError, match="Recipes: artbench, "):
        config_path("nothing/xyzzy.yaml")


def settings(*flags):
    types = (ModelArguments, DataArguments, LGMArguments, RunArguments)
    model, data, given, run = parse_arguments(types, "", flags, OF_DEMO)
    return model.model, data.dataset, given.output_dir, run.eval_models, given.flip, given.crop_scale, given.seed


def test_the_demo_has_settings_of_its_own():
    others = False, [0.3, 1.0], 42
    whole = ["demo-vit"], "demo-digits", "outputs/demo", ["demo-convnext"], *others
    assert settings() == whole
    assert settings("--seed", "7") == (*whole[:-1], 7)
    assert settings("--model", "demo-vit", "--dataset", "demo-digits") == (*whole[:2], "", *whole[3:])
    assert settings("--model", "demo-convnext") == (["demo-convnext"], "demo-digits", "", [], *others)
    assert settings("--flip", "true")[4] is True
    own = settings("--model", "demo-vit", "--dataset", hf_lgm.__path__[0])
    assert own[3:] == ([], True, [0.08, 1.0], 42)
    assert settings("--model", "user/net")[1:] == (None, "", [], True, [0.08, 1.0], 42)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "hf-lgm COMMAND --help"),
        (["--help"], "distil a dataset into a few images per class"),
        (["--version"], f"hf_lgm {hf_lgm.__version__}"),
        (["env"], "transformers"),
    ],
)
def test_the_front_command(argv, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hf-lgm", *argv])
    front.main()
    assert said in capsys.readouterr().out


def test_a_command_that_is_none(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["hf-lgm", "distil"])
    with pytest.raises(SystemExit, match=r"'distil' is no command. Did you mean distill\?"):
        front.main()


@pytest.mark.parametrize("command", [name for name in front.COMMANDS if name != "env"])
def test_a_command_gets_its_flags(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hf-lgm", command, "--help"])
    with pytest.raises(SystemExit):
        front.main()
    assert capsys.readouterr().out.startswith(f"usage: hf-lgm {command} [flags]")


def test_flags_of_no_group_are_shown(capsys):
    parser = argparse.ArgumentParser(prog="x")
    parser.add_argument("--depth", help="How deep.")
    from hf_lgm.cli.help import help_text

    assert "besides:\n  --depth DEPTH\n      How deep." in help_text(parser, shows_all=False)
