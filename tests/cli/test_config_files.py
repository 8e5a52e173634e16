"""What YAML files say, and what they can't say."""

import pytest

from hf_lgm.arguments import LGMArguments
from hf_lgm.cli.arguments import DataArguments, ModelArguments
from hf_lgm.cli.parsing import parse_arguments


def read(tmp_path, text, *flags):
    path = tmp_path / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    types = (ModelArguments, DataArguments, LGMArguments)
    values = {}
    for each in parse_arguments(types, "", ["--config", str(path), *flags]):
        values |= vars(each)
    return values


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("crop_scale: [8e-2, 1]", "crop_scale", [0.08, 1.0]),  # YAML 1.1 reads 8e-2 as text
        ("image_mean: [5e-1, 5e-1, '0.5']", "image_mean", [0.5, 0.5, 0.5]),
        ("image_mean: 5e-1", "image_mean", [0.5]),
        ("max_steps: 10.0", "max_steps", 10),
        ("max_steps: 1e3", "max_steps", 1000),
        ('max_steps: "10"', "max_steps", 10),
        ("max-steps: 10", "max_steps", 10),
        ("learning_rate: 1e-3", "learning_rate", 1e-3),
        ("learning_rate: 1", "learning_rate", 1.0),
        ("flip: no", "flip", False),
        ("flip: off", "flip", False),
        ('flip: "False"', "flip", False),
        ("bf16: yes", "bf16", True),
        ("eval_strategy: no", "eval_strategy", "no"),  # YAML 1.1 reads it as false
        ("report_to: none", "report_to", ["none"]),
        ("classes: [01, no, 1e3]", "classes", ["01", "no", "1e3"]),
        ("classes: 3", "classes", ["3"]),
        ("classes:\n- a\n- b", "classes", ["a", "b"]),
        ("revision: 0123456", "revision", "0123456"),  # YAML 1.1 reads an octal number
        ("run_name: 2026-01-01", "run_name", "2026-01-01"),
        ("run_name: =", "run_name", "="),
        ("save_total_limit: null", "save_total_limit", None),
        ("chunk_size:", "chunk_size", None),
        ("resume_from_checkpoint: true", "resume_from_checkpoint", "auto"),
        ("max_steps: &x 1\nseed: *x", "seed", 1),
        ("", "max_steps", 300),
        ("# nothing\n", "max_steps", 300),
        ("max_steps: 7".encode("utf-16"), "max_steps", 7),
        (b"\xef\xbb\xbfmax_steps: 7", "max_steps", 7),
    ],
)
def test_values_are_of_their_flags_types(tmp_path, text, name, value):
    found = read(tmp_path, text)[name]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_steps: ten", "c.yaml: max_steps must be a whole number, found 'ten'."),
        ("max_steps: [10]", "c.yaml: max_steps must be a whole number, found a list."),
        ("max_steps: {a: 1}", "c.yaml: max_steps must be a whole number, found a mapping of names to values."),
        ("max_steps:", "c.yaml: max_steps needs a value; leave it out for its default."),
        ("classes:", "c.yaml: classes needs a value; leave it out for its default."),
        ("classes: [a, null]", "c.yaml: classes needs a value"),
        ("crop_scale: [[0.1, 1]]", "c.yaml: crop_scale must be a number, found a list."),
        ("learning_rate: .nan", "c.yaml: learning_rate must be a number, found '.nan'."),
        ("learning_rate: nan", "c.yaml: learning_rate must be a number, found 'nan'."),
        ("flip: maybe", "c.yaml: flip must be true or false, found 'maybe'."),
        ("init: [noise, centroid]", "c.yaml: init must be text, found a list."),
        ("objective: mse", "c.yaml: objective must be one of lgm, ridge, found 'mse'."),
        ("objective: [lgm]", "c.yaml: objective must be one of lgm, ridge, found a list."),
        ("max_steps: 1\nmax_steps: 2", "c.yaml, line 2 is not YAML of flags: max_steps stands there twice."),
        ("max_steps: 1\nmax-steps: 2", "c.yaml names max_steps twice."),
        ("- max_steps: 1", "c.yaml must hold flags, as in 'max_steps: 300', found a list."),
        ("max_steps", "c.yaml must hold flags, as in 'max_steps: 300', found one value."),
        ("model: [a", "c.yaml, line 1 is not YAML of flags: expected ',' or ']', but got '<stream end>'."),
        ("max_steps: !!python/object:os.system 1", "c.yaml, line 1 is not YAML of flags: could not determine a"),
        ("max_steps: !!int x", "c.yaml is not YAML"),
        ("a: 1\n---\nb: 2", "c.yaml, line 2 is not YAML of flags: but found another document."),
        ("? [a]\n: 1", "c.yaml, line 1 is not YAML of flags: found unhashable key."),
        ("null: 1", "c.yaml has unknown flags: None."),
        ("config: a.yaml", "c.yaml has unknown flags: config."),
        ("max_step: 3", "c.yaml has unknown flags: max_step. Did you mean max_steps?"),
        ("fp16: true", "c.yaml has fields that LGMConfig does not take: fp16: use bf16."),
        (b"max_steps: \xff", "c.yaml is not YAML: unacceptable character #x00ff: invalid start byte."),
        (b"max_steps: \x00", "c.yaml is not YAML: unacceptable character"),
        ("[" * 5000, "c.yaml is not YAML: it is nested too deeply."),
        ("classes: &x [*x]", "c.yaml: classes must be text, found a list."),
    ],
)
def test_what_a_file_can_not_say_is_one_sentence(tmp_path, text, message):
    with pytest.raises(ValueError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value) and str(caught.value).startswith("--config: ")
    assert "\n" not in str(caught.value)


def test_aliases_that_explode_are_not_written_out(tmp_path):
    lines = ["f0: &a0 [x, x]", *(f"f{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))]
    with pytest.raises(ValueError, match="has unknown flags: f0"):
        read(tmp_path, "\n".join(lines))
    nested = "[" * 40 + "x" + "]" * 40
    with pytest.raises(ValueError, match="classes must be text, found a list."):
        read(tmp_path, f"classes: {nested}")


def test_a_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="is a folder: give the file that is in it."):
        parse_arguments((ModelArguments,), "", ["--config", str(tmp_path)])


def test_the_command_line_goes_before_files_and_later_files_before_earlier(tmp_path):
    (tmp_path / "first.yaml").write_text("seed: 1\nmax_steps: 1\nviews_per_step: 1\n")
    assert read(tmp_path, "seed: 2\nmax_steps: 2", "--seed", "3")["max_steps"] == 2
    configs = [str(tmp_path / "first.yaml"), str(tmp_path / "c.yaml")]
    (args,) = parse_arguments((LGMArguments,), "", ["--config", *configs, "--seed", "3"])
    assert (args.seed, args.max_steps, args.views_per_step) == (3, 2, 1)
