"""Whatever happens to the bytes of an artifact is found, and the file is named."""

import json
import shutil

import pytest
from artifact_samples import commit, new_workspace, sample_files

from stages.artifacts.artifact import Artifact
from stages.artifacts.manifest import digest_line
from stages.errors import ArtifactDamaged, InputMissing

PAYLOAD = sorted(sample_files())
FILES = [*PAYLOAD, "manifest.json", "manifest.sha256"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An intact artifact."""
    return commit(new_workspace(tmp_path_factory.mktemp("whole"))).path


@pytest.fixture
def copy(whole, tmp_path):
    """A copy that a test may hurt, at a path that this process has not checked yet."""
    return shutil.copytree(whole, tmp_path / "0001")


def faults(folder):
    """What a stage and `wm verify` would report about this artifact."""
    try:
        artifact = Artifact.load(folder, kind="rollouts")
    except (ArtifactDamaged, InputMissing) as error:
        return [error]
    return artifact.verify()


def only_fault(folder, name):
    (error,) = faults(folder)
    assert f"rollouts/0001/{name}" in str(error)
    assert "wm rollout --force" in error.fix
    return error


def test_an_intact_artifact_has_no_faults(copy):
    assert faults(copy) == []
    artifact = Artifact.load(copy, kind="rollouts")
    assert artifact.files() == [copy / name for name in PAYLOAD]
    assert artifact.files(".h5") == [copy / "shard-00000.h5"]


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_found(copy, name):
    path = copy / name
    content = path.read_bytes()
    num_bits = 8 * len(content)
    for place in range(0, num_bits, max(1, num_bits // 60)):
        hurt = bytearray(content)
        hurt[place // 8] ^= 1 << place % 8
        path.write_bytes(hurt)
        (error,) = faults(copy)
        assert error.exit_code == 4
        assert "rollouts/0001" in error.what


@pytest.mark.parametrize("name", FILES)
def test_every_cut_is_found(copy, name):
    path = copy / name
    content = path.read_bytes()
    for percent in range(0, 100, 5):
        path.write_bytes(content[: len(content) * percent // 100])
        (error,) = faults(copy)
        assert error.exit_code == 4


@pytest.mark.parametrize("name", PAYLOAD)
def test_a_missing_or_renamed_file_is_found(copy, name):
    (copy / name).rename(copy / f"old-{name}")
    assert isinstance(only_fault(copy, name), InputMissing)
    with pytest.raises(InputMissing, match=name):
        Artifact.load(copy, kind="rollouts").file(name)


def test_another_file_in_its_place_is_found_with_both_digests(copy):
    path = copy / "metrics.jsonl"
    other = path.read_bytes().replace(b"0.5", b"0.6")  # same size
    path.write_bytes(other)
    error = only_fault(copy, "metrics.jsonl")
    entry = Artifact.load(copy, kind="rollouts").entry("metrics.jsonl")
    assert f"expected sha256 {entry.sha256}, found sha256" in error.what
    with pytest.raises(ArtifactDamaged, match=r"metrics\.jsonl"):
        Artifact.load(copy, kind="rollouts").file("metrics.jsonl")


def test_links_and_folders_in_place_of_a_file_are_found(copy, whole):
    (copy / "metrics.jsonl").unlink()
    (copy / "metrics.jsonl").symlink_to(whole / "metrics.jsonl")
    (copy / "weights.safetensors").unlink()
    (copy / "weights.safetensors").mkdir()
    assert len(faults(copy)) == 2


def test_a_cheap_look_finds_what_has_another_size(copy, whole):
    artifact = Artifact.load(copy, kind="rollouts")
    assert list(artifact.misfits()) == []
    path = copy / "shard-00000.h5"
    content = path.read_bytes()

    def said():
        (error,) = artifact.misfits()
        assert "wm rollout --force" in error.fix
        return error.what.removeprefix("rollouts/0001/shard-00000.h5 ")

    path.write_bytes(content[:-7])
    assert said() == f"has {len(content) - 7:,} bytes instead of {len(content):,}."
    path.unlink()
    assert said() == "is missing."
    path.symlink_to(whole / path.name)
    assert said() == "is not a plain file."
    path.unlink()
    path.mkdir()
    assert said() == "is not a plain file."


def test_a_missing_manifest_or_digest_is_found(copy):
    (copy / "manifest.sha256").rename(copy / "aside")
    assert isinstance(only_fault(copy, "manifest.sha256"), ArtifactDamaged)
    (copy / "aside").rename(copy / "manifest.sha256")
    (copy / "manifest.json").unlink()
    assert isinstance(only_fault(copy, "manifest.json"), InputMissing)


def test_the_artifact_of_another_kind_is_found(copy):
    with pytest.raises(ArtifactDamaged, match="rollouts"):
        Artifact.load(copy, kind="vision")


def rewrite_manifest(folder, **changes):
    content = json.dumps(json.loads((folder / "manifest.json").read_bytes()) | changes).encode()
    (folder / "manifest.json").write_bytes(content)
    (folder / "manifest.sha256").write_bytes(digest_line(content))


def test_a_newer_artifact_names_the_version_that_is_needed(copy):
    rewrite_manifest(copy, format_version=2)
    error = only_damage(copy)
    assert "version 2" in error.what and "pip install --upgrade" in error.fix


def only_damage(folder):
    (error,) = faults(folder)
    assert isinstance(error, ArtifactDamaged)
    return error


def test_a_hostile_manifest_cannot_point_outside(copy, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    entry = {"name": "../secret", "bytes": 6, "sha256": "0" * 64}
    rewrite_manifest(copy, files=[entry])
    assert "plain file name" in str(only_damage(copy))


def test_an_unknown_file_name_lists_the_known_ones(copy):
    with pytest.raises(InputMissing, match=r"metrics\.jsonl"):
        Artifact.load(copy, kind="rollouts").file("weights.pt")
