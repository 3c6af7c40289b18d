"""Which round an artifact belongs to, as its parents tell it."""

from collections.abc import Mapping

from stages.artifacts.manifest import ParentRef
from stages.artifacts.workspace import KINDS, Workspace

Rounds = Mapping[str, int]  # id -> round; without those whose parents are gone
DRIVEN = "rollouts"  # what a controller records begins the next round


def rounds_of(workspace: Workspace) -> Rounds:
    """The round of every artifact: that of its newest parent, one more where a controller drove.

    What has no parents is of round 1. Nothing else counts, so the same holds for rounds that were
    made by hand, stage by stage.
    """
    waiting = [artifact for kind in KINDS for artifact in workspace.artifacts(kind)]
    decided: dict[tuple[str, str], int] = {}  # by kind and content, as parents are found
    found: dict[str, int] = {}
    while True:  # ends also where forged manifests are each other's parents
        ready = [one for one in waiting if all(_key(p) in decided for p in one.manifest.parents)]
        if not ready:
            return found
        for one in ready:
            rounds = [decided[_key(parent)] for parent in one.manifest.parents]
            found[one.id] = max(rounds, default=1) + (bool(rounds) and one.kind == DRIVEN)
            decided[_key(one.reference())] = found[one.id]
        waiting = [one for one in waiting if one.id not in found]


def _key(parent: ParentRef) -> tuple[str, str]:
    return parent.kind, parent.payload_digest
