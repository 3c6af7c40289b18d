"""Unfinished work that rots is noticed; what a death cuts, at whatever moment, is not mistaken."""

import hashlib
import json
import shutil

import pytest
from artifact_samples import certificate, identity, new_workspace, sample_files
from test_power_cut import Recording, survivors

from stages.artifacts.disk import replaced
from stages.artifacts.partial import partial_path
from stages.artifacts.sidecars import put
from stages.artifacts.workspace import Workspace
from stages.errors import ArtifactDamaged

KIND = "memory"
LINES = [f'{{"step": {number}}}' for number in range(4)]


def work(workspace):
    """Every way in which a stage writes, most of them twice."""
    with workspace.lock(KIND):
        partial = workspace.begin(KIND, identity(KIND))
        partial.record({"threads": 2})
        partial.keep_lines("metrics.jsonl", [])
        for line in LINES:
            partial.append("metrics.jsonl", line)
        partial.write("step-1.safetensors", b"one" * 100)
        partial.record({"threads": 2, "device": "cpu"})
        partial.keep_lines("metrics.jsonl", LINES[:2])
        partial.append("metrics.jsonl", LINES[2])
        partial.write("step-1.safetensors", b"two" * 100)
        partial.remove("step-1.safetensors")
        partial.append("pending.jsonl", LINES[0])
        partial.remove("pending.jsonl")
        partial.append("pending.jsonl", LINES[1])
        put(partial.path / "shard-00000.h5", b"a worker wrote this" * 50)
    return partial.path


@pytest.fixture
def begun(tmp_path):
    """A workspace with unfinished work."""
    workspace = new_workspace(tmp_path)
    work(workspace)
    return workspace


def again(workspace):
    """A later process finds the work."""
    later = Workspace.open(workspace.root)
    with later.lock(KIND):
        return later.begin(KIND, identity(KIND))


def test_what_was_written_is_found_sound(begun):
    partial = again(begun)
    assert partial.rotten() == []
    assert partial.recorded() == {"threads": 2, "device": "cpu"}
    assert partial.lines("metrics.jsonl") == LINES[:3]
    assert partial.lines("pending.jsonl") == LINES[1:2]
    assert partial.names() == ["metrics.jsonl", "pending.jsonl", "shard-00000.h5"]


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_every_flipped_bit_of_a_shard_makes_it_missing(begun):
    path = again(begun).path / "shard-00000.h5"
    for bit in range(0, 8 * path.stat().st_size, 61):
        flip(path, bit)
        partial = again(begun)
        assert partial.rotten() == ["shard-00000.h5"]
        assert not partial.has("shard-00000.h5")
        assert partial.read("shard-00000.h5") is None
        flip(path, bit)
    assert again(begun).has("shard-00000.h5")


def test_every_flipped_bit_of_a_digest_is_on_the_safe_side(begun):
    """The file counts as rotten, or its older neighbour in the list proves it all the same."""
    folder = again(begun).path
    path = folder / ".digest-shard-00000.h5"
    for bit in range(0, 8 * path.stat().st_size, 7):
        flip(path, bit)
        assert not again(begun).has("shard-00000.h5")
        flip(path, bit)


@pytest.mark.parametrize("name", ["metrics.jsonl", "state.json"])
def test_every_flipped_bit_of_a_log_and_of_the_state_is_refused(begun, name):
    path = again(begun).path / name
    good = path.read_bytes()
    for bit in range(8 * len(good)):
        flip(path, bit)
        partial = again(begun)
        try:
            found = partial.recorded() if name == "state.json" else partial.lines(name)
        except ArtifactDamaged as error:
            assert str(path) in error.what and str(partial.path) in error.fix
        else:  # in the last line, which then counts as cut
            assert name == "metrics.jsonl" and found == LINES[:2]
        path.write_bytes(good)


def test_a_line_that_a_death_cut_is_dropped_and_the_log_goes_on(begun):
    path = again(begun).path / "metrics.jsonl"
    good = path.read_bytes()
    for keep in range(len(good) - len(LINES[2]) - 1, len(good)):
        path.write_bytes(good[:keep])
        partial = again(begun)
        assert partial.lines("metrics.jsonl") == LINES[:2]
        partial.append("metrics.jsonl", LINES[2])
        assert path.read_bytes() == good


def test_what_rots_between_writing_and_commit_is_never_certified(begun):
    with begun.lock(KIND):
        partial = begun.begin(KIND, identity(KIND))
        assert partial.has("shard-00000.h5")
        flip(partial.path / "shard-00000.h5", 99)
        with pytest.raises(ArtifactDamaged, match=r"shard-00000\.h5"):
            partial.commit(certificate(KIND), payload=["shard-00000.h5"])
    assert begun.artifacts(KIND) == []


def test_what_rots_after_a_commit_that_was_cut_is_not_taken(begun):
    """The digests were removed already: the manifest takes their place."""
    with begun.lock(KIND):
        partial = begun.begin(KIND, identity(KIND))
        artifact = partial.commit(certificate(KIND), payload=["shard-00000.h5"])
        shutil.move(artifact.path, partial.path)
        (partial.path / "notes.txt").write_text("mine")
        flip(partial.path / "shard-00000.h5", 99)
        partial = begun.begin(KIND, identity(KIND))
        assert partial.finished() is None
        assert partial.rotten() == ["shard-00000.h5"]
    assert not again(begun).has("shard-00000.h5")
    assert not again(begun).has("notes.txt")


def test_work_that_an_earlier_version_began_is_gone_on_with(begun):
    folder = again(begun).path
    for path in folder.glob(".digest*"):
        path.unlink()
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'{"ste')
    partial = again(begun)
    assert partial.rotten() == []
    assert partial.lines("metrics.jsonl") == LINES[:3]
    flip(folder / "shard-00000.h5", 5)
    assert again(begun).rotten() == ["shard-00000.h5"]


def test_a_death_while_old_work_is_adopted_changes_nothing(begun):
    folder = again(begun).path
    (folder / ".digests").unlink()
    (folder / ".digest-metrics.jsonl").unlink()
    partial = again(begun)
    assert partial.rotten() == []
    assert partial.lines("metrics.jsonl") == LINES[:3]


def test_a_checkpoint_that_rotted_before_it_was_adopted_is_not_taken(begun):
    """Earlier versions kept the digests of checkpoints in the state."""
    folder = again(begun).path
    (folder / "step-9.checkpoint.safetensors").write_bytes(b"rotten")
    digests = {"step-9.checkpoint.safetensors": hashlib.sha256(b"as it was").hexdigest()}
    for path in folder.glob(".digest*"):
        path.unlink()
    (folder / "state.json").write_text(json.dumps({"checkpoints": digests}))
    assert again(begun).rotten() == ["step-9.checkpoint.safetensors"]


def test_a_log_that_rotted_in_the_middle_is_good_up_to_there(begun):
    """A search goes on from there; the whole log is only given up when nothing is good."""
    with begun.lock(KIND):
        partial = begun.begin(KIND, identity(KIND))
        for line in LINES:
            partial.append("search.jsonl", line)
    path = partial.path / "search.jsonl"
    flip(path, 8 * (len(LINES[0]) + len(LINES[1]) + 6))
    partial = again(begun)
    assert partial.rotten() == ["search.jsonl"]
    assert partial.lines("search.jsonl") == LINES[:2]
    assert again(begun).rotten() == []
    flip(path, 3)
    with pytest.raises(ArtifactDamaged, match=r"search\.jsonl"):
        again(begun).lines("search.jsonl")


def test_lines_that_were_not_sealed_count_until_a_death(begun):
    with begun.lock(KIND):
        partial = begun.begin(KIND, identity(KIND))
        partial.append("loose.jsonl", LINES[0], sealed=False)
        partial.seal("loose.jsonl")
        partial.append("loose.jsonl", LINES[1], sealed=False)
        assert partial.lines("loose.jsonl") == LINES[:2]
        partial.append("loose.jsonl", LINES[2], sealed=False)
    assert again(begun).lines("loose.jsonl") == LINES[:1]
    with begun.lock(KIND):
        partial.append("loose.jsonl", LINES[3], sealed=False)  # as a process that never died
        flip(partial.path / "loose.jsonl", 5)
        with pytest.raises(ArtifactDamaged, match=r"loose\.jsonl"):
            partial.commit(certificate(KIND), payload=["loose.jsonl"])


def test_no_power_cut_makes_good_work_look_rotten(tmp_path):
    recording = Recording()
    with replaced(recording):
        workspace = new_workspace(tmp_path / "run")
        folder = work(workspace)
    trace, seen = recording.trace, set()
    for stop in range(len(trace) + 1):
        for num_lucky in {0, stop // 2, stop - 1, stop}:
            files = survivors(trace[:stop], max(0, num_lucky))
            kept = {path.name: c for path, c in files.items() if path.parent == folder}
            root = tmp_path / "after"
            target = partial_path(root / KIND, identity(KIND))
            target.mkdir(parents=True)
            for name, content in kept.items():
                (target / name).write_bytes(content)
            after = Workspace(root)
            with after.lock(KIND):
                partial = after.begin(KIND, identity(KIND))
                assert partial.rotten() == []
                assert partial.recorded().get("threads", 2) == 2
                found = partial.lines("metrics.jsonl")
                assert found == LINES[: len(found)]
                seen.add(len(found))
            shutil.rmtree(root)
    assert seen >= {0, 1, 2, 3}


def test_what_others_put_beside_unfinished_work_is_neither_used_nor_removed(tmp_path):
    workspace = new_workspace(tmp_path)
    with workspace.lock("rollouts"):
        partial = workspace.begin("rollouts", identity())
        partial.write("shard-00000.h5", sample_files()["shard-00000.h5"])
        partial.write("checkpoint.safetensors", b"dropped at the end")
        (partial.path / "slurm-1.out").write_text("mine")
        (partial.path / "old").mkdir()
        (partial.path / "old" / "notes.txt").write_text("mine")
        again = workspace.begin("rollouts", identity())
        assert again.rotten() == []
        assert not again.has("slurm-1.out")
        artifact = again.commit(certificate(), payload=["shard-00000.h5"])
    assert artifact.foreign() == ["old", "slurm-1.out"]
    assert (artifact.path / "old" / "notes.txt").read_text() == "mine"
    assert artifact.verify() == []
