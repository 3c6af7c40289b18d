"""A stage that dies or is refused at any step of writing leaves nothing that looks whole."""

import errno
import itertools
import shutil

import pytest
from artifact_samples import certificate, commit, identity, new_workspace
from failing_calls import FailingCalls, QuickCalls

from stages.artifacts.disk import SystemCalls, replaced
from stages.artifacts.manifest import digest_line
from stages.artifacts.workspace import Workspace
from stages.errors import ArtifactDamaged, EnvironmentLacks

PAYLOAD = {f"shard-{number:05d}.h5": bytes([number]) * 5000 for number in range(2)}
LOG = ['{"step": 1}', '{"step": 2}']


class Killed(BaseException):
    """Stands for kill -9: nothing that the program does afterwards has any effect."""


def stage(root):
    """A stage as the verbs write it: resume, build, commit; or what exists already."""
    workspace = Workspace.open(root, create=True)
    found = workspace.matching("rollouts", identity(number=2))
    if found:
        return found
    with workspace.lock("rollouts"):
        partial = workspace.begin("rollouts", identity(number=2))
        finished = partial.finished()
        return finished or build(partial)


def build(partial):
    for name, content in PAYLOAD.items():
        if not partial.has(name):
            partial.write(name, content)
    partial.record({"threads": 1})
    partial.write("checkpoint-1.safetensors", b"aside")
    partial.keep_lines("metrics.jsonl", [])
    for line in LOG:
        partial.append("metrics.jsonl", line)
    return partial.commit(certificate(), payload=[*PAYLOAD, "metrics.jsonl"])


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Payload digest of the run that nothing disturbed."""
    return stage(tmp_path_factory.mktemp("calm") / "workspace").manifest.payload_digest


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A workspace with one earlier artifact."""
    workspace = new_workspace(tmp_path_factory.mktemp("begun"))
    commit(workspace)
    return workspace.root


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def check_intact(root, first):
    """Every artifact that can be seen is whole, and the earlier one is still there."""
    workspace = Workspace.open(root)
    good, damaged = workspace.scan("rollouts")
    assert damaged == []
    assert first in good
    assert [artifact.verify() for artifact in good] == [[]] * len(good)


def check_finished(root, expected):
    artifact = stage(root)
    assert artifact.id == "rollouts/0002"
    assert artifact.manifest.payload_digest == expected
    assert artifact.verify() == []
    assert names_in(artifact.path.parent) == [".lock", "0001", "0002"]
    assert names_in(root) == [".lock", "rollouts", "workspace.json"]
    files = {*PAYLOAD, "metrics.jsonl", "manifest.json", "manifest.sha256"}
    assert names_in(artifact.path) == sorted(files)


BROKEN = OSError(errno.EIO, "Input/output error")
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (BROKEN, {}),
        (FULL, {"lasting": True, "only": {"create", "write", "open_end"}}),
        (Killed(), {"lasting": True}),
    ],
    ids=["one call fails", "the disk stays full", "killed"],
)
def test_every_step_may_fail(tmp_path, begun, expected, error, options):
    for at in itertools.count(1):
        root = shutil.copytree(begun, tmp_path / str(at))
        first = Workspace.open(root).get("rollouts/1")
        calls = FailingCalls(error, at=at, **options)
        with replaced(calls):
            try:
                stage(root)
            except (EnvironmentLacks, Killed) as caught:
                if isinstance(caught, EnvironmentLacks):
                    assert str(root) in caught.what and caught.fix
        check_intact(root, first)
        with replaced(QuickCalls()):
            check_finished(root, expected)
        if calls.count < at:
            break
    assert at > 15  # at least the creation and the content of eight files


class KilledAtPublishing(SystemCalls):
    """Dies at the very last step, when the folder gets its number."""

    def rename(self, source, target):
        if target.name.isdigit():
            raise Killed
        super().rename(source, target)


def test_a_commit_that_died_before_the_rename_is_published_without_its_checkpoints(tmp_path):
    root = new_workspace(tmp_path).root
    with replaced(KilledAtPublishing()), pytest.raises(Killed):
        stage(root)
    (partial,) = Workspace.open(root).partials("rollouts")
    assert "manifest.json" in names_in(partial)
    assert "checkpoint-1.safetensors" not in names_in(partial)
    workspace = Workspace.open(root)
    assert workspace.artifacts("rollouts") == []
    with workspace.lock("rollouts"):
        artifact = workspace.begin("rollouts", identity(number=2)).finished()
    assert artifact is not None and artifact.verify() == []
    assert workspace.artifacts("rollouts") == [artifact]


def test_a_half_made_commit_is_not_taken_for_a_finished_one(tmp_path):
    root = new_workspace(tmp_path).root
    with replaced(KilledAtPublishing()), pytest.raises(Killed):
        stage(root)
    (partial,) = Workspace.open(root).partials("rollouts")
    (partial / "shard-00000.h5").write_bytes(b"changed since")
    workspace = Workspace.open(root)
    with workspace.lock("rollouts"):
        assert workspace.begin("rollouts", identity(number=2)).finished() is None


@pytest.mark.parametrize("harm", ["flipped", "digest gone", "newer"])
def test_a_finished_commit_whose_manifest_has_rotted_is_not_made_again_in_silence(harm, tmp_path):
    """Its checkpoints are gone by then: going on would mean to begin anew."""
    root = new_workspace(tmp_path).root
    with replaced(KilledAtPublishing()), pytest.raises(Killed):
        stage(root)
    (partial,) = Workspace.open(root).partials("rollouts")
    before = names_in(partial)
    content = (partial / "manifest.json").read_bytes()
    if harm == "digest gone":
        (partial / "manifest.sha256").unlink()
    elif harm == "flipped":
        (partial / "manifest.json").write_bytes(content[:100] + b"~" + content[101:])
    else:
        newer = content.replace(b'"format_version": 1', b'"format_version": 2')
        assert newer != content
        (partial / "manifest.json").write_bytes(newer)
        (partial / "manifest.sha256").write_bytes(digest_line(newer))
    workspace = Workspace.open(root)
    with workspace.lock("rollouts"), pytest.raises(ArtifactDamaged) as refusal:
        workspace.begin("rollouts", identity(number=2)).finished()
    assert "manifest" in refusal.value.what
    assert refusal.value.fix
    assert {*names_in(partial), "manifest.sha256"} == set(before)
    (partial / "manifest.json").unlink()
    with workspace.lock("rollouts"):
        assert workspace.begin("rollouts", identity(number=2)).finished() is None
