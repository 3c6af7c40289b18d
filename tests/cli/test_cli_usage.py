"""Command lines that are wrong are answered with the nearest one that is right, and exit 2."""

from pathlib import Path

import pytest

from stages import STAGES
from stages.artifacts.workspace import Workspace
from wm_cli.app import run

COMMANDS = [
    *(stage.name for stage in STAGES),
    *(alias for stage in STAGES for alias in stage.aliases),
    "run",
    "clean",
    "play",
    "status",
    "show",
    "verify",
    "doctor",
    "config",
    "bench",
    "import",
    "export",
]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("rollot", "rollout"),
        ("train-vea", "train-vae"),
        ("rollout --worker 2", "--workers"),
        ("status --presset debug", "--preset"),
        ("config --preset qick", "quick"),
        ("config --recipe carracin", "carracing"),
        ("config --set rollout.episods=3", "rollout.episodes"),
        ("config --set rollout.episodes=some", "integer"),
        ("rollout --seed", "--seed"),
        ("verify vison/0001 -w {workspace}", "vision/0001"),
        ("rollout rollout.episodes=3", "--set rollout.episodes=3"),
        ("rollout.episodes=3", "--set rollout.episodes=3"),
        ("rollout --rollout.episodes=3", "--set rollout.episodes=3"),
        ("rollout --rollout.episodes 3", "--set rollout.episodes=3"),
        ("train-vision --latent-size 3", "--set vision.latent_size="),
        ("--workspace x rollout", "wm rollout --workspace"),
        ("sample-latents --episodes 3", "wm rollout"),
        ("rollout --device gpu", "cuda"),
    ],
)
def test_a_mistyped_word_is_answered_with_the_right_one(words, answer, recorded, capsys, tmp_path):
    line = words.format(workspace=recorded).split()
    if line[0] == "config":
        line += ["-w", str(tmp_path / "none")]
    assert run(line) == 2
    told = capsys.readouterr()
    assert answer in told.err
    assert told.out == ""


@pytest.mark.parametrize("number", ["0", "-1", "two"])
def test_workers_are_at_least_one(number, capsys, tmp_path):
    assert run(["rollout", "--workers", number, "-w", str(tmp_path / "new")]) == 2
    assert "--workers" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name, capsys):
    assert run([name, "--help"]) == 0
    told = capsys.readouterr().out
    assert f"wm {name}" in told.split("Example:")[1]
    assert "--json" in told


def test_help_lists_the_stages_in_the_order_of_the_pipeline(capsys):
    assert run([]) == 0
    told = capsys.readouterr().out
    places = [told.index(f"│ {name} ") for name in COMMANDS if name != "train-vae"]
    assert places == sorted(places)
    assert "│ train-vae " not in told, "the alias is documented, not listed"


def test_examples_are_command_lines_that_parse(capsys):
    """Each example is parsed for real; only its `--help` is asked for."""
    for name in COMMANDS:
        assert run([name, "--help"]) == 0
        _, *words = capsys.readouterr().out.split("Example:")[1].split()
        assert run([*words, "--help"]) == 0
        capsys.readouterr()


def test_an_alias_is_the_same_stage(wm, tmp_path):
    answers = [wm(name, "-w", tmp_path / "new") for name in ("train-vae", "train-vision")]
    assert [answer.returncode for answer in answers] == [3, 3]
    assert answers[0].stderr == answers[1].stderr
    assert "wm rollout" in answers[0].stderr


def test_an_unwritable_workspace_is_refused(wm, tmp_path: Path):
    (tmp_path / "file").write_text("here")
    answer = wm("rollout", "-w", tmp_path / "file" / "below")
    assert answer.returncode == 6
    assert str(tmp_path / "file") in answer.stderr
    assert (tmp_path / "file").read_text() == "here"


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (("train-control", "--in", "dreams"), "Did you mean dream?"),
        (("train-vision", "--device", "gpu"), "wm train-vision --help"),
        (("train-vision", "-w", "w", "--device", "cudo"), "Did you mean cuda?"),
        (("train-vision", "-w", "w", "--device", "elsewhere"), "wm train-vision --help"),
    ],
)
def test_a_value_that_an_option_does_not_take(wm, tmp_path, words, fix):
    """The nearest one; a workspace called `w` is not in every word with a w."""
    Workspace.open(tmp_path / "w", create=True)
    answer = wm(*words)
    said = " ".join(answer.stderr.split())
    assert answer.returncode == 2
    assert "is not one of" in said
    assert fix in said
    assert "Did you mean -w" not in said
