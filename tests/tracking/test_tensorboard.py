"""What `--track tensorboard` writes, read by the tensorboard package itself."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from command_line import copied, digests, environment, manifest, settings, wm
from PIL import Image

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ALL = dict.fromkeys(("scalars", "images", "tensors"), 0)
STAGE_KINDS = {"train-vision": "vision", "evaluate": "evaluations"}
# A tracker of the test's own takes the place of the real one.
FOREIGN = """
import sys, time
from stages.tracking import protocol

class Foreign:
    def start(self, run):
        {start}
    def log(self, item):
        {log}
    def finish(self):
        pass

sys.modules["foreign"] = sys.modules["__main__"]
protocol.KINDS["foreign"] = protocol.Kind("json", "tensorboard", "foreign", "Foreign")
from wm_cli.__main__ import main
main()
"""


def events_of(workspace, stage) -> EventAccumulator:
    (folder,) = (workspace / "tracking" / "tensorboard").glob(f"{stage}-*")
    kind = STAGE_KINDS[stage]
    told = manifest(workspace, f"{kind}/{newest(workspace, kind)}")
    numbered = [path.parent.name for path in (workspace / kind).glob("[0-9]*/manifest.json")]
    made = [manifest(workspace, f"{kind}/{number}")["fingerprint"] for number in numbered]
    which = made.count(told["fingerprint"])
    name = f"{stage}-{told['fingerprint'][:16]}"
    assert folder.name == (name if which == 1 else f"{name}-{which}")
    found = EventAccumulator(str(folder), size_guidance=ALL)
    found.Reload()
    return found


def newest(workspace, kind) -> str:
    return max(path.name for path in (workspace / kind).glob("[0-9]*"))


def lines_of(workspace, kind) -> list[dict]:
    path = workspace / kind / newest(workspace, kind) / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_same_scalars(events, lines):
    told = {}
    for line in lines:
        for name, value in line.items():
            if name != "step":
                told.setdefault(name, []).append((line["step"], float(np.float32(value))))
    read = {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }
    assert read == told


@pytest.fixture(scope="module")
def tracked(micro_workspace, tmp_path_factory):
    """V and an evaluation with a film, tracked; the rest is as it was."""
    root = copied(micro_workspace, tmp_path_factory.mktemp("tracked") / "w")
    wm("train-vision", "-w", root, "--force", "--track", "tensorboard")
    words = ("--force", "--record", 1, "--track", "tensorboard")
    wm("evaluate", "-w", root, *words)
    return root


@pytest.mark.pipeline
def test_scalars_are_those_of_metrics_jsonl(tracked):
    assert_same_scalars(events_of(tracked, "train-vision"), lines_of(tracked, "vision"))
    assert_same_scalars(events_of(tracked, "evaluate"), lines_of(tracked, "evaluations"))


@pytest.mark.pipeline
def test_pictures_are_the_artifacts_own(tracked):
    events = events_of(tracked, "train-vision")
    for name in ("reconstructions", "traversal"):
        (image,) = events.Images(f"vision/{name}")
        path = tracked / "vision" / newest(tracked, "vision") / f"{name}.png"
        assert image.encoded_image_string == path.read_bytes()
        with Image.open(path) as picture:
            assert (image.width, image.height) == picture.size


@pytest.mark.pipeline
def test_a_film_moves(tracked):
    events = events_of(tracked, "evaluate")
    (tag,) = [tag for tag in events.Tags()["images"] if tag.startswith("evaluate/seed-")]
    (image,) = events.Images(tag)
    with Image.open(io.BytesIO(image.encoded_image_string)) as film:
        assert film.format == "GIF" and film.n_frames > 5
        first = np.asarray(film.convert("RGB"), dtype=int)
        film.seek(film.n_frames - 1)
        assert np.abs(np.asarray(film.convert("RGB"), dtype=int) - first).mean() > 1


@pytest.mark.pipeline
def test_the_resolved_configuration_is_there(tracked):
    (event,) = events_of(tracked, "train-vision").Tensors("config")
    told = json.loads(event.tensor_proto.string_val[0].decode())
    assert told == manifest(tracked, f"vision/{newest(tracked, 'vision')}")["config"]


@pytest.mark.pipeline
def test_artifacts_and_commands_do_not_mind(tracked, micro_workspace):
    made, plain = digests(tracked), digests(micro_workspace)
    assert made[f"vision/{newest(tracked, 'vision')}"] == plain["vision/0001"]
    assert made[f"evaluations/{newest(tracked, 'evaluations')}"] == plain["evaluations/0001"]
    wm("verify", "-w", tracked)
    wm("status", "-w", tracked)


@pytest.mark.pipeline
def test_a_run_that_goes_on_has_no_step_twice(micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "w", before="vision")
    words = ("--checkpoint-seconds", 0, "--track", "tensorboard")
    script = (
        "import os, stages.training.session as session\n"
        "save = session.Session._save\n"
        "def killed(self, state):\n"
        "    save(self, state)\n"
        "    if state.step == 5:\n"
        "        os._exit(9)\n"
        "session.Session._save = killed\n"
        "from wm_cli.__main__ import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", script, "train-vision", "-w", root, *map(str, words)]
    died = subprocess.run(command, env=environment(), capture_output=True, check=False, timeout=300)
    assert died.returncode == 9, died.stderr
    wm("train-vision", "-w", root, *words)
    assert_same_scalars(events_of(root, "train-vision"), lines_of(root, "vision"))
    assert digests(root)["vision/0001"] == digests(micro_workspace)["vision/0001"]


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("start", "log", "said"),
    [
        ("raise RuntimeError('offline')", "pass", "failed and is left out"),
        ("pass", "time.sleep(10_000)", "did not finish"),
    ],
)
def test_a_tracker_that_fails_or_hangs_changes_nothing(start, log, said, micro_workspace, tmp_path):
    root = copied(micro_workspace, tmp_path / "w", before="vision")
    script = FOREIGN.format(start=start, log=log).replace(
        "import sys, time",
        "import sys, time\nfrom stages.tracking import aside\naside.PATIENCE = 1",
    )
    words = ["train-vision", "-w", str(root), "--track", "foreign"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(said) == 1
    assert "Traceback" not in done.stderr
    assert digests(root)["vision/0001"] == digests(micro_workspace)["vision/0001"]


def test_an_unknown_tracker_is_refused_before_any_work(tmp_path):
    done = wm("rollout", "-w", tmp_path / "w", "--track", "board", *settings(), code=2)
    assert "There is no tracker 'board'" in done.said and "tensorboard" in done.said
    assert not (tmp_path / "w").exists()
