"""A packed agent's folder: whole or absent, checked before it is used, never in a wrong place."""

import json
from pathlib import Path

import pytest
from artifact_samples import new_workspace, run_python, seal

from stages.artifacts.agent_folder import check_place, load_agent, write_agent
from stages.artifacts.manifest import Certificate
from stages.contracts import WorldSpec
from stages.errors import ArtifactDamaged, InputMissing, InputsMismatch, UsageError

FILES = {"vision.safetensors": b"V" * 3000, "control.safetensors": b"C" * 40}
WORLD = {"env": "CarRacing-v3", "engine": "gymnasium", "repeat": 4, "crop": [0, 84, 0, 96],
         "size": 64, "max_frames": 0}  # fmt: skip


def certificate(note="first"):
    return Certificate(
        stage="export", family="world-models", recipe="carracing", preset="hour", algorithm=1,
        config={"world": WORLD, "seed": 1}, parents=(), seeds={}, summary={"note": note},
        provenance={},
    )  # fmt: skip


def written(folder: Path, note="first", files=FILES):
    return write_agent(folder, files, certificate(note), fingerprint="ab" * 32)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_written_is_read_and_verifies(tmp_path):
    made = written(tmp_path / "deep" / "down" / "red car")
    found = load_agent(tmp_path / "deep" / "down" / "red car")
    assert (found.id, found.manifest.summary) == ("agents/red car", {"note": "first"})
    assert found.world == WorldSpec(engine="gymnasium", repeat=4)
    assert found.verify() == [] and made.manifest == found.manifest
    assert found.file("control.safetensors").read_bytes() == FILES["control.safetensors"]
    assert set(content(found.path)) == {*FILES, "manifest.json", "manifest.sha256"}


def test_the_same_agent_gives_the_same_bytes(tmp_path):
    assert content(written(tmp_path / "a").path) == content(written(tmp_path / "b").path)


def test_a_link_to_an_agent_is_an_agent(tmp_path):
    written(tmp_path / "agent")
    (tmp_path / "link").symlink_to("agent")
    assert load_agent(tmp_path / "link").verify() == []


def test_what_is_no_agent_is_refused_by_what_it_is(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("absent", "empty", "file"):
        with pytest.raises(InputMissing, match=name):
            load_agent(tmp_path / name)
    with pytest.raises(InputsMismatch, match="is a workspace"):
        load_agent(new_workspace(tmp_path).root)
    seal(written(tmp_path / "other").path, lambda manifest: manifest.update(kind="control"))
    with pytest.raises(InputsMismatch, match="'control'"):
        load_agent(tmp_path / "other")


def test_damage_is_found(tmp_path):
    agent = written(tmp_path / "agent")
    (agent.path / "control.safetensors").write_bytes(b"c" + b"C" * 39)
    with pytest.raises(ArtifactDamaged, match=r"agents/agent/control\.safetensors") as caught:
        load_agent(agent.path).file("control.safetensors")
    assert "wm export agent" in caught.value.fix
    (agent.path / "vision.safetensors").unlink()
    with pytest.raises(InputMissing):
        load_agent(agent.path).file("vision.safetensors")
    told = json.loads((agent.path / "manifest.json").read_bytes())
    (agent.path / "manifest.json").write_text(json.dumps(told | {"preset": "paper"}))
    with pytest.raises(ArtifactDamaged, match=r"manifest\.sha256"):
        load_agent(agent.path)


def renamed(name):
    def change(manifest):
        manifest["files"][0]["name"] = name

    return change


@pytest.mark.parametrize(
    "change",
    [
        renamed("../secret.safetensors"),
        renamed("/etc/passwd"),
        renamed("..\\secret"),
        renamed("manifest.json"),
        lambda manifest: manifest["config"].pop("world"),
        lambda manifest: manifest["config"].update(world=[]),
        lambda manifest: manifest["config"]["world"].pop("crop"),
        lambda manifest: manifest["config"]["world"].update(repeat="four"),
        lambda manifest: manifest["config"]["world"].update(size=10**9),
        lambda manifest: manifest["config"]["world"].update(surprise=1),
        lambda manifest: manifest.update(format_version=2),
    ],
)
def test_a_hostile_manifest_is_refused_although_its_digest_is_right(tmp_path, change):
    (tmp_path / "secret.safetensors").write_bytes(FILES["control.safetensors"])
    seal(written(tmp_path / "agent").path, change)
    with pytest.raises(ArtifactDamaged):
        load_agent(tmp_path / "agent")


def test_a_file_that_is_a_link_is_refused(tmp_path):
    agent = written(tmp_path / "agent")
    (agent.path / "control.safetensors").rename(tmp_path / "elsewhere")
    (agent.path / "control.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactDamaged, match="plain file"):
        load_agent(agent.path).file("control.safetensors")


def test_only_an_agent_alone_may_be_replaced(tmp_path):
    check_place(tmp_path / "new", force=False)
    agent = written(tmp_path / "agent")
    with pytest.raises(UsageError, match="already"):
        check_place(agent.path, force=False)
    check_place(agent.path, force=True)
    (agent.path / "diary.txt").write_text("dear all")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    inside = new_workspace(tmp_path).root / "agents" / "mine"
    for place in (agent.path, tmp_path / "empty", tmp_path / "file", inside, inside.parents[1]):
        with pytest.raises(UsageError):
            check_place(place, force=True)


def test_another_agent_takes_the_place_of_an_earlier_one(tmp_path):
    written(tmp_path / "agent", files={**FILES, "memory.safetensors": b"M"})
    written(tmp_path / "agent", "second")
    assert load_agent(tmp_path / "agent").manifest.summary == {"note": "second"}
    assert [path.name for path in tmp_path.iterdir()] == ["agent"]
    assert "memory.safetensors" not in content(tmp_path / "agent")


# Every process dies at the n-th system call, as by kill -9; the parent looks at what is left.
DYING = """
import os, sys
from pathlib import Path
import test_agent_folder as t
from stages.artifacts.disk import SystemCalls, replaced
from stages.artifacts.agent_folder import load_agent
from stages.errors import InputMissing

class Dying(SystemCalls):
    left = 0
    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name.startswith("_") or not callable(found):
            return found
        def call(*arguments):
            Dying.left -= 1
            if Dying.left < 0:
                os._exit(9)
            return found(*arguments)
        return call
    def sync(self, handle):
        pass

root, earlier = Path(sys.argv[1]), sys.argv[2] == "earlier"
for number in range(1000):
    folder = root / str(number) / "agent"
    if earlier:
        t.written(folder, "first")
    child = os.fork()
    if child == 0:
        Dying.left = number
        with replaced(Dying()):
            t.written(folder, "second")
        os._exit(0)
    died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    try:
        found = load_agent(folder)
        assert found.verify() == []
        seen = found.manifest.summary["note"]
    except InputMissing:
        assert not folder.exists()
        seen = "absent"
    print(seen)
    t.written(folder, "second")
    assert load_agent(folder).verify() == []
    assert load_agent(folder).manifest.summary["note"] == "second"
    assert [path.name for path in folder.parent.iterdir()] == ["agent"], "what was left is cleared"
    if not died:
        break
"""


@pytest.mark.parametrize("earlier", ["earlier", "nothing"])
def test_killed_at_any_step_leaves_a_whole_agent_or_none(tmp_path, earlier):
    seen = run_python(DYING, tmp_path, earlier).split()
    assert len(seen) > 15, "at least the creation, the content and the name of every file"
    first = "first" if earlier == "earlier" else "absent"
    assert seen[0] == first and seen[-1] == "second"
    assert set(seen) <= {"first", "absent", "second"}
    assert seen == sorted(seen, key=[first, "absent", "second"].index), "never back again"
