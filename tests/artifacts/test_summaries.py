"""A manifest whose digests are right is still refused where it lacks what readers need."""

import pytest
from artifact_samples import commit, new_workspace, seal

from stages.artifacts.artifact import Artifact
from stages.artifacts.summaries import actions_of
from stages.contracts import ActionSpec
from stages.errors import ArtifactDamaged


def put(place, value):
    def change(manifest):
        *inner, last = place.split(".")
        for name in inner:
            manifest = manifest[name]
        manifest[last] = value

    return change


def drop(place):
    def change(manifest):
        *inner, last = place.split(".")
        for name in inner:
            manifest = manifest[name]
        del manifest[last]

    return change


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("rollouts", drop("summary.actions"), "summary.actions.kind is missing"),
        ("rollouts", put("summary.actions.kind", "disc"), "one of box, choice"),
        ("rollouts", put("summary.actions.size", 2), "not those of an action"),
        ("rollouts", put("summary.actions.low", [2, 0, 0]), "not those of an action"),
        ("rollouts", put("summary.engines", []), "summary.engines"),
        ("rollouts", put("config.seed", -1), "config.seed is -1"),
        ("rollouts", drop("config.world"), "does not tell its world"),
        ("rollouts", drop("config.world.crop"), "does not tell its world"),
        ("rollouts", put("config.world.repeat", 0), "world that cannot be"),
        ("rollouts", put("config.world.surprise", 1), "world that cannot be"),
        ("vision", put("summary.shape", 8), "summary.shape.latent_size is missing"),
        ("vision", put("summary.shape.latent_size", 2**30), "it must be a size"),
        ("vision", put("parents", []), "names no rollouts among its parents"),
        ("memory", put("summary.shape.end_head", 0), "true or false"),
        ("memory", put("parents", []), "names no latents and no vision"),
        ("memory", put("summary.actions", {"kind": "box"}), "summary.actions.size is missing"),
    ],
)
def test_what_readers_need_is_there_or_the_artifact_is_refused(tmp_path, kind, change, said):
    artifact = commit(new_workspace(tmp_path), kind)
    assert Artifact.load(artifact.path, kind=kind).id == f"{kind}/0001"
    seal(artifact.path, change)
    with pytest.raises(ArtifactDamaged) as caught:
        Artifact.load(artifact.path, kind=kind)
    assert f"{kind}/0001" in caught.value.what
    assert said in str(caught.value)
    assert "Make it again" in caught.value.fix


def test_actions_are_those_that_were_told(tmp_path):
    workspace = new_workspace(tmp_path)
    rollouts, memory = commit(workspace), commit(workspace, "memory")
    wanted = ActionSpec("box", 3, (-1, 0, 0), (1, 1, 1))
    assert actions_of(Artifact.load(rollouts.path, kind="rollouts").manifest) == wanted
    assert actions_of(memory.manifest) is None, "earlier versions did not tell"
