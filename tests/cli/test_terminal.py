"""What a run prints, and what it keeps to itself."""

import io
import logging
import sys

import pytest
from commands import run

from hf_lgm import progress as bars
from hf_lgm.cli import terminal
from hf_lgm.cli.parsing import run_command

DEMO = ["--max_steps", "3", "--views_per_step", "2", "--eval_seeds", "2"]
DEMO += ["--max_train_samples", "100", "--max_eval_samples", "50"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return run(*DEMO, cwd=folder), folder / "outputs" / "demo"


def test_a_run_into_a_file_is_forty_lines_at_most(finished):
    done, _ = finished
    printed = done.stderr + done.stdout
    assert printed.count("\n") <= 40 and "\r" not in printed
    assert not [word for word in ("%|", "Loading weights", "Creating parquet", "{", "Warning") if word in printed]
    assert "demo-vit: Dinov2Model, 96 features (pooler), images of 32 pixels, float32\n" in done.stderr
    assert "Distilling 10 images in 3 steps on cpu\n" in done.stderr


def test_the_rest_is_in_its_log(finished):
    _, folder = finished
    log = (folder / "run.log").read_text()
    assert log.startswith("# What a run of hf_lgm said\n")
    assert 'DEBUG hf_lgm.backbones.backbone: {"name": "demo-vit", ' in log and "Distilling 10 images" in log


def test_a_run_that_goes_on_adds_to_its_log_and_one_that_is_given_up_begins_anew(finished):
    _, folder = finished
    flags, where = [*DEMO, "--save_strategy", "no"], folder.parent.parent
    run(*flags, "--resume_from_checkpoint", "auto", cwd=where)
    assert (folder / "run.log").read_text().count("Distilling 10 images") == 2
    run(*flags, "--overwrite", cwd=where)
    assert (folder / "run.log").read_text().count("Distilling 10 images") == 1


def test_v_shows_what_libraries_say(tmp_path):
    done = run(*DEMO, "-v", cwd=tmp_path)
    assert "Loading weights" in done.stderr and '"feature_size": 96' in done.stderr


def test_somebody_elses_log_is_left_alone(tmp_path):
    folder = tmp_path / "outputs" / "demo"
    folder.mkdir(parents=True)
    (folder / "run.log").write_text("mine")
    done = run(*DEMO, cwd=tmp_path, check=False)
    assert "holds run.log, which is not of a run of hf_lgm" in done.stderr
    assert (folder / "run.log").read_text() == "mine"


def test_a_line_a_minute_without_a_terminal(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    for _ in bars.progress(range(1000), desc="short"):
        pass
    assert written.getvalue() == ""
    monkeypatch.setattr(bars, "_SECONDS", 0)  # as if each step took a minute
    for _ in bars.progress(range(3), desc="long", unit="step"):
        pass
    lines = written.getvalue().splitlines()
    assert len(lines) == 3 and all(line.startswith("long: ") and "/3 [" in line for line in lines)
    assert "\r" not in written.getvalue()


def test_a_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    for _ in bars.progress(range(3), desc="here", mininterval=0):
        pass
    assert sys.stderr.getvalue().count("\r") > 1 and "100%|" in sys.stderr.getvalue()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("caf\u00e9 \u732b \u0631\u200c\u0647\n\tsecond line", "caf\u00e9 \u732b \u0631\u200c\u0647\n\tsecond line"),
        ("\x1b]0;title\x07\x1b[2J", r"\x1b]0;title\x07\x1b[2J"),
        ("\x9b2J\x7f\rover", r"\x9b2J\x7f\rover"),
        ("cat\u202egnp.exe\u2066", r"cat\u202egnp.exe\u2066"),
    ],
)
def test_a_strangers_words_do_not_steer_the_terminal(text, shown, capsys, caplog):
    def fail():
        logging.getLogger("hf_lgm").warning("seen: %s", text)
        terminal.say(text)
        raise ValueError(text)

    with pytest.raises(SystemExit) as ended:
        run_command(fail)
    said = capsys.readouterr()
    assert said.out == f"{shown}\n" and f"seen: {shown}\n" in said.err and f"error: {shown}\n" in ended.value.code


def test_half_a_letter_of_a_files_name_is_no_error(capsys):
    terminal.say(b"caf\xe9".decode(errors="surrogateescape"))
    assert capsys.readouterr().out == "caf\\udce9\n"


def test_a_log_is_printed_later(tmp_path):
    def speak():
        terminal.keep_log(tmp_path)
        logging.getLogger("hf_lgm").warning("seen: \x1b[2J")

    run_command(speak)
    assert r"seen: \x1b[2J" in (tmp_path / "run.log").read_text()
