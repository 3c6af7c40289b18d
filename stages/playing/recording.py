"""What is kept of a play: whole episodes, one shard each, as an artifact of the kind `plays`.

Each episode is on disk as soon as it ends. A play that is killed leaves unfinished work with whole
shards in it; the next one makes an artifact of that (`recover`).
"""

import secrets
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stages import PLAY
from stages.artifacts.artifact import Artifact
from stages.artifacts.canonical import fingerprint
from stages.artifacts.episodes import EpisodeRecord, EpisodeShardWriter, each_shard
from stages.artifacts.manifest import Certificate, ParentRef
from stages.artifacts.partial import Partial, partial_path
from stages.artifacts.plain import COUNT, TEXT, Rule, fault, keyed, listed, one_of
from stages.artifacts.producing import DREAM
from stages.artifacts.shards import shard_name
from stages.artifacts.state import recorded_in
from stages.artifacts.versions import provenance
from stages.artifacts.workspace import Workspace
from stages.contracts import ActionSpec, Job
from stages.worlds.coverage import cover
from stages.worlds.making import lap_rule

ALGORITHM = 1
REFERENCE = "gymnasium"  # what worlds are played on
REMEMBERED = "play"  # key of the state under which a partial tells what is being recorded
_TOLD: Mapping[str, Rule] = {
    **dict.fromkeys(("fingerprint", "family", "recipe", "preset", "config.world.env"), TEXT),
    "config.seed": COUNT,
    "engine": one_of(REFERENCE, DREAM),
    "actions.kind": one_of("box", "choice"),
    "parents": listed(keyed(TEXT)),
}


@dataclass(frozen=True)
class Site:
    """On what an episode is played."""

    engine: str  # "gymnasium", ...; DREAM
    action_spec: ActionSpec
    watched: tuple[Artifact, ...] = ()  # what a dream is made of: V and M
    driving: tuple[Artifact, ...] = ()  # the controller and its models, where there is one


class Recording:
    """Episodes that become one artifact; a context manager that holds the stage's lock.

    Leaving it commits what was kept, also when an error or a signal ends the play.
    """

    def __init__(self, workspace: Workspace, job: Job, site: Site) -> None:
        self._workspace, self._job, self._site = workspace, job, site
        self._held = ExitStack()
        self._partial: Partial | None = None
        self._told: dict[str, Any] = {}
        self.artifact: Artifact | None = None

    def __enter__(self) -> Self:
        """Take the lock of plays."""
        self._held.enter_context(self._workspace.lock(PLAY.writes))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit what was kept."""
        with self._held:
            if self._partial is not None and self._partial.names(".h5"):
                self.artifact = _committed(self._partial, self._told)

    def keep(self, record: EpisodeRecord, *, drivers: tuple[str, ...], by_agent: bool) -> None:
        """Put an episode on disk; `drivers` are all who drove in it."""
        partial = self._opened()
        parents = (*self._site.watched, *(self._site.driving if by_agent else ()))
        for parent in parents:
            told = asdict(parent.reference())
            if told not in self._told["parents"]:
                self._told["parents"].append(told)
        partial.record({REMEMBERED: self._told})
        writer = EpisodeShardWriter(
            engine=self._site.engine, env=self._job.world.env, policy="+".join(drivers)
        )
        writer.append(record)
        partial.write(shard_name(len(partial.names(".h5"))), writer.image())

    def _opened(self) -> Partial:
        """The folder of this recording, made when there is something to keep."""
        if self._partial is None:
            job, site = self._job, self._site
            config = {
                "world": asdict(job.world),
                "play": {
                    "what": "dream" if site.engine == DREAM else "world",
                    "recording": secrets.token_hex(8),  # no other play is the same
                },
                "seed": job.seed,
            }
            name = fingerprint(
                PLAY.name, algorithm=ALGORITHM, config=config, parents=[], family=job.family
            )
            self._told = {
                "fingerprint": name,
                "family": job.family,
                "recipe": job.recipe,
                "preset": job.preset,
                "config": config,
                "engine": site.engine,
                "actions": asdict(site.action_spec),
                "parents": [],
            }
            self._partial = self._workspace.begin(PLAY.writes, name)
        return self._partial


def recover(workspace: Workspace) -> list[Artifact]:
    """Make artifacts of what killed plays have recorded; what somebody holds is theirs.

    Raises:
        StageError: there is something that cannot be read.
    """
    if not workspace.partials(PLAY.writes) or workspace.lock_holder(PLAY.writes):
        return []
    found: list[Artifact] = []
    with workspace.lock(PLAY.writes):
        for path in workspace.partials(PLAY.writes):
            told = recorded_in(path).get(REMEMBERED)
            if isinstance(told, dict) and not fault(told, _TOLD) and _is_place(path, told):
                partial = workspace.begin(PLAY.writes, told["fingerprint"])
                artifact = partial.finished()
                if artifact is None and any(partial.has(name) for name in partial.names(".h5")):
                    artifact = _committed(partial, told)
                found += [artifact] if artifact else []
    return found


def _is_place(path: Path, told: dict[str, Any]) -> bool:
    return partial_path(path.parent, str(told["fingerprint"])) == path


def _parent(told: Mapping[str, str]) -> ParentRef:
    return ParentRef(*(str(told.get(field.name)) for field in fields(ParentRef)))


def _committed(partial: Partial, told: dict[str, Any]) -> Artifact:
    """The artifact of all whole shards of a partial."""
    names = [name for name in partial.names(".h5") if partial.has(name)]
    drivers: dict[str, None] = {}
    seeds: list[int] = []
    for shard in each_shard(partial.path, names):
        drivers[shard.policy] = None
        seeds += shard.seeds.tolist()
    world = told["config"]["world"]
    summary = {
        "engines": [told["engine"]],
        "policy": ", ".join(drivers),
        "actions": told["actions"],
        **cover(each_shard(partial.path, names)),
    }
    if told["engine"] != DREAM:
        summary["lap_rules"] = {told["engine"]: lap_rule(world["env"], told["engine"])}
    certificate = Certificate(
        stage=PLAY.name,
        family=told["family"],
        recipe=told["recipe"],
        preset=told["preset"],
        algorithm=ALGORITHM,
        config=told["config"],
        parents=tuple(_parent(one) for one in told["parents"]),
        seeds={"purpose": PLAY.name, "seeds": seeds},
        summary=summary,
        provenance=provenance(device="cpu", threads=1),
    )
    return partial.commit(certificate, payload=names)
