"""`wm import`: episodes that others recorded, as an artifact that every later stage reads."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

from stages import IMPORT
from stages.agents import action_spec
from stages.artifacts.episodes import EpisodeRecord, EpisodeShardWriter, each_shard
from stages.artifacts.fitting import WORLD_FIELDS, differing
from stages.artifacts.foreign import ForeignData, ForeignEpisode, check_within
from stages.artifacts.metrics import METRICS, MetricsLog, TaskMetrics
from stages.artifacts.partial import Partial
from stages.artifacts.producing import Outcome, Plan, produce
from stages.artifacts.shards import shard_name
from stages.artifacts.workspace import Workspace
from stages.contracts import IMPORTED, NO_WORLD, WHOLE_FRAME, ActionSpec, Frames, Job
from stages.errors import InputsMismatch, UsageError, keeping
from stages.events import Advanced, Monitor, Noted, OnceEach, Report
from stages.worlds.coverage import Tallies, Tally, cover
from stages.worlds.monotony import Monotony, glance
from stages.worlds.prepare import COLOURS

ALGORITHM = 1
SHARD_FRAMES = 4096  # a shard ends with the episode in which it comes to so many
MAX_SEED = 2**63
STATE = "import"  # key of the state under which a partial tells how far it came
COUNTS = ("come", "episodes", "shards", "cut_short")  # read, taken, written, without an end


@dataclass(frozen=True)
class Asked:
    """What is imported, and how."""

    what: str  # minari | npz | video
    places: tuple[str, ...]
    crop: tuple[int, int, int, int] | None = None  # of its own frames; None where nobody said
    observation: str = ""  # which of several, of Minari
    every: int = 1  # of a film's frames
    cut: int = 1000  # frames of an episode of a film


def asked_for(
    what: str,
    places: Sequence[str],
    *,
    crop: str | None = None,
    observation: str = "",
    every: int = 1,
    cut: int = 1000,
) -> Asked:
    """What the words of a command line ask for.

    Raises:
        UsageError: several places of a format that has one, or an option of another format.
    """
    if what != "video" and len(places) != 1:
        raise UsageError(
            f"`wm import {what}` takes one place, not {len(places)}.",
            fix="Import them one after the other; --from names several for a later stage.",
        )
    if observation and what != "minari":
        raise UsageError("--observation chooses among those of a Minari data set.")
    if what != "video" and (every, cut) != (1, 1000):
        raise UsageError("--every and --cut are for films.")
    if crop is None:
        return Asked(what, tuple(places), None, observation, every, cut)
    kept = tuple(crop.strip("[]").replace(" ", "").split(","))
    if len(kept) != 4 or not all(each.isdecimal() for each in kept):
        raise UsageError(
            f"--crop {crop} is not a part of a frame.",
            fix="Write rows from, to, columns from, to: --crop 0,84,0,96",
        )
    top, bottom, left, right = map(int, kept)
    return Asked(what, tuple(places), (top, bottom, left, right), observation, every, cut)


def run(workspace: Workspace, asked: Asked, job: Job, *, progress: Monitor) -> Report:
    """Import what is missing, and commit it as recorded episodes.

    Raises:
        StageError: it is not there, cannot be read, or is no data that V and M could learn from.
    """
    if job.parents:
        raise UsageError(f"`wm import` reads no artifacts: leave out `--from {job.parents[0]}`.")
    progress.emit(Noted("Reading it once, to know it again."))
    source = opened(asked, progress.poll)
    if not source.num_items:
        raise UsageError(f"{source.name} holds no episodes.")
    spec = _actions(source, job)
    world = asdict(job.world)
    config = {
        "world": {name: world[name] for name in WORLD_FIELDS},
        "import": {
            "format": asked.what,
            "content": source.content,
            "crop": asked.crop or WHOLE_FRAME,
            "observation": asked.observation,
            "every": asked.every,
            "cut": asked.cut,
        },
        "seed": 0,
    }
    plan = Plan(IMPORT, ALGORITHM, job.family, config)

    def build(partial: Partial) -> Outcome:
        return _Taking(partial, source, spec, asked, job, progress).outcome()

    return produce(workspace, plan, job, build, progress=progress)


def opened(asked: Asked, poll: Callable[[], None]) -> ForeignData:
    """The reader of what was asked for."""
    if asked.what == "video":
        from stages.artifacts.film_data import FilmData

        return FilmData(asked.places, every=asked.every, cut=asked.cut, poll=poll)
    (place,) = asked.places
    if asked.what == "npz":
        from pathlib import Path

        from stages.artifacts.npz_data import NpzData

        return NpzData(Path(place), poll)
    from stages.artifacts.minari_data import MinariData
    from stages.worlds.gymnasium_world import action_spec_of

    return MinariData(place, asked.observation, action_spec_of, poll)


def _actions(source: ForeignData, job: Job) -> ActionSpec:
    """What an action is: as the data set tells it, as the world has it, or else what occurs."""
    if job.world.env == NO_WORLD:
        return source.actions()
    theirs = source.actions() if source.tells_actions else None
    if theirs is not None and theirs.kind == "none":
        return theirs  # a film: no code of the environment is run
    ours = action_spec(job.world, job.world.engine)
    if theirs is None:
        return ours
    sides = differing("actions", asdict(theirs), asdict(ours), there="there", here="here")
    if sides:
        raise InputsMismatch(
            f"{source.name} has other actions than {job.world.env}.",
            why=sides,
            fix="Import it into a workspace of its own (-w), with the environment that it is of.",
        )
    return ours


class _Taking:
    """One import in progress."""

    def __init__(
        self,
        partial: Partial,
        source: ForeignData,
        spec: ActionSpec,
        asked: Asked,
        job: Job,
        progress: Monitor,
    ) -> None:
        self.partial, self.source, self.spec = partial, source, spec
        self.asked, self.job, self.progress = asked, job, progress
        self.warnings = OnceEach(progress)
        self.monotony = Monotony(self.warnings)
        self.seeds = carried(source.seeds())
        self.count = self._counted()
        self.metrics = TaskMetrics(MetricsLog(partial, progress), Tallies(IMPORT.name).line)

    def _counted(self) -> dict[str, int]:
        """How far an earlier run came; from the start where one of its shards has rotted."""
        count: dict[str, int] = self.partial.recorded().get(STATE, dict.fromkeys(COUNTS, 0))
        whole = all(self.partial.has(shard_name(n)) for n in range(count["shards"]))
        return dict(count) if whole else dict.fromkeys(COUNTS, 0)

    def outcome(self) -> Outcome:
        """Take in what is missing, and sum it up."""
        for number, shard in enumerate(each_shard(self.partial.path, self._names())):
            self.metrics.finished(number, Tally.of(shard))
        self.progress.emit(Advanced(0, self.source.num_items, "items"))
        with keeping(lambda: f"{self.count['episodes']} episodes are imported and kept."):
            self._take()
        if not self.count["shards"]:
            raise UsageError(
                f"{self.source.name} holds no episode with a step in it.",
                why="A step is an action and the frames before and behind it.",
            )
        return self._summed_up()

    def _take(self) -> None:
        """Write shard after shard; what is in a whole one is not read again."""
        kept = dict(self.count)
        writer, num_frames, done = self._writer(), 0, 0
        for item, read in islice(self.source.episodes(self._shrink), kept["come"], None):
            self.progress.poll()
            if item > done:  # a film is done when the next one begins, not with its first piece
                done = item
                self.progress.emit(Advanced(done, self.source.num_items, "items"))
            episode = read()
            kept["come"] += 1
            if episode is None:
                continue
            writer.append(self._record(item, episode, kept))
            num_frames += len(episode.observations)
            if num_frames >= SHARD_FRAMES:
                self._put(writer, kept)
                writer, num_frames = self._writer(), 0
        if num_frames:
            self._put(writer, kept)
        elif kept != self.count:  # nothing but empty ones came behind the last shard
            self._count(kept)
        self.progress.emit(Advanced(self.source.num_items, self.source.num_items, "items"))

    def _record(self, item: int, episode: ForeignEpisode, kept: dict[str, int]) -> EpisodeRecord:
        inside = check_within(episode.actions, self.spec, episode.name)
        if not inside:
            self.warnings.say("bounds", f"Actions of {episode.name} lie outside their bounds.")
        truncations = episode.truncations
        if not (episode.terminations[-1] or truncations[-1]):  # its recording was cut
            truncations = truncations.copy()
            truncations[-1] = True
            kept["cut_short"] += 1
        seed = self.seeds[item] if self.seeds else kept["episodes"]
        kept["episodes"] += 1
        return EpisodeRecord(
            seed=seed,
            observations=episode.observations,
            actions=episode.actions,
            rewards=episode.rewards,
            terminations=episode.terminations,
            truncations=truncations,
        )

    def _writer(self) -> EpisodeShardWriter:
        return EpisodeShardWriter(engine=IMPORTED, env=self.job.world.env, policy=IMPORTED)

    def _put(self, writer: EpisodeShardWriter, kept: dict[str, int]) -> None:
        name = shard_name(kept["shards"])
        self.partial.write(name, writer.image())
        kept["shards"] += 1
        self._count(kept)
        for shard in each_shard(self.partial.path, [name]):
            self.metrics.finished(kept["shards"] - 1, Tally.of(shard))
            if self.spec.kind != "none":
                self.monotony.see(glance(shard))

    def _names(self) -> list[str]:
        return [shard_name(number) for number in range(self.count["shards"])]

    def _count(self, kept: dict[str, int]) -> None:
        self.partial.record({STATE: dict(kept)})
        self.count = dict(kept)

    def _shrink(self, frames: Frames, source: str) -> Frames:
        """Frames of the data set as V sees them."""
        from stages.worlds.prepare import check_crop, colour, prepare

        self.progress.poll()
        coloured = colour(frames[..., None] if frames.ndim == 3 else frames)
        height, width = coloured.shape[1:3]
        crop = self._crop(height, width, source)
        try:
            check_crop(crop, (height, width, COLOURS))
        except UsageError as error:
            raise UsageError(
                f"--crop {list(crop)} does not fit the frames of {source}.",
                why=f"They have {height} x {width} pixels.",
                fix="Leave it out for the whole frame.",
            ) from error
        return prepare(coloured, crop, self.job.world.size)

    def _crop(self, height: int, width: int, source: str) -> tuple[int, int, int, int]:
        """The part of these frames that V sees.

        Raises:
            UsageError: nobody said, and the world shows V a part of its own frames.
        """
        if self.asked.crop is not None:
            return self.asked.crop
        world = self.job.world
        if world.crop == WHOLE_FRAME:
            return WHOLE_FRAME
        if (height, width) != (world.size, world.size):
            theirs = ",".join(map(str, world.crop))
            raise UsageError(
                f"Which part of the frames of {source} V should see is not said.",
                why=f"They have {height} x {width} pixels, and of {world.env} V sees a part alone "
                f"(world.crop={list(world.crop)}).",
                fix=f"Are they as {world.env} draws them: --crop {theirs}. "
                "Are they such parts already: --crop 0,0,0,0",
            )
        told = (
            f"Frames of {height} x {width} pixels count as cropped already; --crop says otherwise."
        )
        self.warnings.say("crop", told)
        return WHOLE_FRAME

    def _summed_up(self) -> Outcome:
        names = self._names()
        coverage = cover(each_shard(self.partial.path, names))
        rate = self.source.frames_per_second
        summary = {
            "engines": [IMPORTED],
            "policy": IMPORTED,
            "source": self.source.name,
            "actions": asdict(self.spec),
            **({"frames_per_second": rate} if rate else {}),
            **coverage,
            "left_out": self.count["come"] - self.count["episodes"],
            "cut_short": self.count["cut_short"],
        }
        seeds = {"purpose": "import", "count": self.count["episodes"], "told": bool(self.seeds)}
        return Outcome([*names, METRICS], summary=summary, seeds=seeds, notes=tuple(self._notes()))

    def _notes(self) -> Iterator[str]:
        left_out = self.count["come"] - self.count["episodes"]
        if self.spec.kind == "none":
            yield "Films have no actions: V learns from them, M and C cannot."
        elif not self.source.tells_actions:
            yield f"What an action is was not told; what occurs: {words(self.spec)}."
        if self.source.lacks and self.spec.kind != "none":
            yield f"There are no {' and no '.join(self.source.lacks)}: they are taken as none."
        if self.count["cut_short"] and self.spec.kind != "none":
            yield f"{self.count['cut_short']} episodes tell no end: their recording was cut there."
        if left_out:
            yield f"{left_out} episodes without a step were left out."
        if self.count["episodes"] < 2:
            yield "Training needs two episodes or more, to hold one of them out."
        if self.job.world.env == NO_WORLD:
            yield "Stages that drive a world need one: --set world.env=module:EnvId"


def carried(seeds: Sequence[int | None]) -> list[int]:
    """The seeds of the data set, where every episode has one of its own; else none."""
    told = [seed for seed in seeds if seed is not None and 0 <= seed < MAX_SEED]
    return told if len(set(told)) == len(seeds) else []


def words(spec: ActionSpec) -> str:
    """An action for people."""
    if spec.kind == "box":
        return f"{spec.size} floats from {list(spec.low)} to {list(spec.high)}"
    return f"{spec.size} choices"
