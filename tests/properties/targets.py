"""Everything that parses, each with hostile input for it; `child.py` runs them."""

import contextlib
import fcntl
import hashlib
import io
import json
import lzma
import os
import shutil
import tomllib
import unicodedata
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hdf5_checksums import checksummed_blocks, with_checksums
from hostile import (
    NASTY_TEXTS,
    RAW,
    json_files,
    json_values,
    mutated_bytes,
    mutated_json,
    scalars,
    texts,
    written,
)
from hypothesis import strategies as st

from stages import STAGES
from stages.artifacts.agent_folder import load_agent
from stages.artifacts.artifact import Artifact
from stages.artifacts.episodes import EpisodeRecord, EpisodeShard, EpisodeShardWriter
from stages.artifacts.latents import LatentRecord, LatentShard, latents_image
from stages.artifacts.lock import StageLock
from stages.artifacts.npz_data import NpzData
from stages.artifacts.partial import Partial
from stages.artifacts.scores import parse_log, read_csv
from stages.artifacts.shards import Shard
from stages.artifacts.sidecars import promised, sidecar
from stages.artifacts.state import recorded_in
from stages.artifacts.weights import pack_tensors, unpack_tensors
from stages.artifacts.workspace import Workspace
from stages.contracts import Resources
from stages.control.scoring import parse_result
from stages.errors import ExitCode, StageError
from stages.events import Report, Silent
from stages.inspection.foresight import notes, parse_horizon, tables
from stages.inspection.overview import look, status
from stages.inspection.running import running
from stages.inspection.showing import show
from stages.inspection.verification import verify
from stages.pipeline import DEFAULT_RECIPE, Request, sections, settle
from stages.settings.overrides import parse_overrides
from stages.settings.recipes import load_recipe
from stages.settings.resolve import resolve
from wm_cli.watching import lines_of

KINDS = tuple(stage.writes for stage in STAGES)  # of the kept workspace
FORMATS = Path(__file__).parent.parent / "formats"
DAMAGED = {ExitCode.DAMAGED}
FAMILY = "world-models"


@dataclass(frozen=True)
class Target:
    """A reader, what it is given, and the exit codes with which it may refuse."""

    strategy: st.SearchStrategy[Any]
    read: Callable[[Any], object]
    codes: Collection[ExitCode] = frozenset(DAMAGED)
    examples: int = 60


def targets(folder: Path) -> dict[str, Target]:
    """All of them, working in this folder."""
    root = _kept_workspace(folder)
    return {
        "manifest": _manifests(root),
        "commands": _commands(root),
        "trained agent": _trained_agents(root, folder),
        "packed agent": _packed_agents(folder),
        "workspace.json": _workspace_file(root),
        "recipe": _recipes(folder),
        "override": _overrides(),
        "id": _ids(root),
        "episodes": _shards(EpisodeShard, folder, _episode_images()),
        "latents": _shards(LatentShard, folder, _latent_images()),
        "found": _found(folder),
        "safetensors": _safetensors(),
        "npz": _archives(folder),
        "dataset.json": _told_data_sets(folder),
        "table": _tables(root),
        "result": Target(json_files(RESULT), lambda content: parse_result(content, source="r")),
        "horizon": _horizons(),
        "state": _states(folder),
        "search log": _search_logs(folder),
        "checkpoint": _checkpoints(folder),
        "lock note": _lock_notes(folder),
        "digests": _sidecars(folder),
        "report": _reports(root),
        "reported files": _reported_files(root),
    }


def _kept_workspace(folder: Path) -> Path:
    """The kept workspace of format version 1: every kind of artifact, small."""
    root = folder / "workspace"
    shutil.copytree(FORMATS / "v1", root)
    for packed in root.rglob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()
    return root


# --------------------------------------------------------------------------------- JSON documents


def sealed(document: Any) -> Any:
    """A manifest whose digest of the payload is right again, as a forger would have it."""
    with contextlib.suppress(KeyError, TypeError):
        lines = [f"{one['name']} {one['bytes']} {one['sha256']}\n" for one in document["files"]]
        digest = hashlib.sha256("".join(sorted(lines)).encode(errors="replace")).hexdigest()
        document["payload_digest"] = digest
    return document


def put_manifest(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    line = f"{hashlib.sha256(content).hexdigest()}  manifest.json\n"
    (folder / "manifest.sha256").write_text(line)


@contextlib.contextmanager
def manifest_in(folder: Path, content: bytes) -> Iterator[None]:
    """The folder with another manifest while the block runs."""
    before = (folder / "manifest.json").read_bytes()
    put_manifest(folder, content)
    try:
        yield
    finally:
        put_manifest(folder, before)


def _told(root: Path, kind: str) -> Any:
    return json.loads((root / kind / "0001" / "manifest.json").read_bytes())


def _mutated_manifests(
    root: Path, kinds: Collection[str] = KINDS
) -> st.SearchStrategy[tuple[str, bytes]]:
    return st.sampled_from(sorted(kinds)).flatmap(
        lambda kind: st.tuples(
            st.just(kind), mutated_json(_told(root, kind)).map(sealed).map(written)
        )
    )


def _manifests(root: Path) -> Target:
    def read(example: tuple[str, bytes]) -> None:
        kind, content = example
        with manifest_in(root / kind / "0001", content):
            artifact = Artifact.load(root / kind / "0001", kind=kind)
            assert all((artifact.path / name).parent == artifact.path for name in artifact.names())

    noise = st.tuples(st.sampled_from(KINDS), json_files(_told(root, "control")))
    return Target(_mutated_manifests(root) | noise, read, examples=120)


def _commands(root: Path) -> Target:
    """`wm status`, which plans every stage, `wm verify`, and the table of an evaluation."""

    def read(example: tuple[str, bytes]) -> None:
        kind, content = example
        with manifest_in(root / kind / "0001", content):
            _shown(verify(Workspace.open(root), (f"{kind}/0001",)))
            _shown(status(look(root, Request(), progress=Silent())))
            _shown(show(root, f"{kind}/0001"))
            if kind == "evaluations":
                from stages.evaluate import score_table

                score_table(Workspace.open(root).get("evaluations/0001"))

    return Target(_mutated_manifests(root), read, examples=40)


def _shown(report: Report) -> None:
    """What the command would show holds nothing that moves a cursor."""
    from wm_cli.render import json_text, show_report

    for as_json in (False, True):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            show_report(report, as_json=as_json)
        strange = {c for c in said.getvalue() if unicodedata.category(c) in ("Cc", "Cs")} - {"\n"}
        assert not strange, f"shown: {strange}"
    json.loads(json_text(report))


def _trained_agents(root: Path, folder: Path) -> Target:
    """What evaluates and exports a controller believes its manifest and those of V and M."""

    def read(example: tuple[str, bytes]) -> None:
        from stages.agents import trained_agent

        kind, content = example
        with manifest_in(root / kind / "0001", content):
            workspace = Workspace.open(root)
            control = workspace.newest("control")
            assert control is not None
            trained_agent(workspace, control)

    kinds = ("vision", "memory", "control")
    codes = {*DAMAGED, ExitCode.MISSING}  # a parent that is not here
    return Target(_mutated_manifests(root, kinds), read, codes, examples=25)


def _packed_agents(folder: Path) -> Target:
    agent = folder / "agent"
    shutil.copytree(FORMATS / "agents-v1" / "thin", agent)
    packed = agent / "vision.safetensors.xz"
    packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))

    def read(content: bytes) -> None:
        from stages.agents import packed_agent

        with manifest_in(agent, content):
            packed_agent(load_agent(agent))

    told = json.loads((agent / "manifest.json").read_bytes())
    codes = {*DAMAGED, ExitCode.MISMATCH, ExitCode.MISSING}  # another kind; a file it does not list
    return Target(mutated_json(told).map(sealed).map(written), read, codes, examples=30)


def _workspace_file(root: Path) -> Target:
    document = json.loads((root / "workspace.json").read_bytes())

    def read(content: bytes) -> None:
        before = (root / "workspace.json").read_bytes()
        (root / "workspace.json").write_bytes(content)
        try:
            settle(root, Request())
        finally:
            (root / "workspace.json").write_bytes(before)

    codes = {*DAMAGED, ExitCode.USAGE}  # a value that no setting may have
    return Target(json_files(document), read, codes)


# ------------------------------------------------------------------------------ settings and ids


def _recipes(folder: Path) -> Target:
    shipped = Path(__file__).parents[2] / "stages/settings/recipes/carracing.toml"
    content = shipped.read_bytes()
    path = folder / "recipe.toml"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        recipe = load_recipe(path)
        resolve(sections(FAMILY), recipe)

    structured = mutated_json(tomllib.loads(content.decode())).map(_toml)
    strategy = structured | mutated_bytes(content) | st.binary(max_size=64)
    return Target(strategy, read, {ExitCode.USAGE}, examples=80)


TOML_RAWS = (
    "nan", "-inf", "1e999", "0x" + "f" * 5000, "9" * 5000, "1979-05-27T07:32:00Z", "07:32:00",
    "[" * 30 + "]" * 30, "{a={a={a=1}}}", "'''\n'''", "[{}]", "0o7", "1_0",
)  # fmt: skip


def _toml(document: Any) -> bytes:
    """TOML of a document; raw texts of JSON stand for raw texts of TOML."""

    def value(item: Any) -> str:
        if isinstance(item, str) and item.startswith(RAW):
            return TOML_RAWS[len(item) % len(TOML_RAWS)]
        if isinstance(item, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {value(v)}" for k, v in item.items()) + "}"
        if isinstance(item, list):
            return "[" + ", ".join(map(value, item)) + "]"
        return '"none"' if item is None else json.dumps(item)

    if not isinstance(document, dict):
        return value(document).encode()
    lines = [f"{json.dumps(key)} = {value(item)}" for key, item in document.items()]
    return "\n".join(lines).encode(errors="replace")


def _overrides() -> Target:
    known = sections(FAMILY)
    recipe = load_recipe(DEFAULT_RECIPE)
    keys = [f"{name}.{field}" for name, cls in known.items() for field in cls.__dataclass_fields__]

    def read(words: list[str]) -> None:
        settings = resolve(known, recipe, overrides=parse_overrides(words))
        settings.rows()

    values = (
        st.sampled_from((*TOML_RAWS, *NASTY_TEXTS, "[1,2", "a,b", "{a=1}", "~", "+x=1", "=", "'"))
        | json_values.map(lambda value: written(value).decode(errors="replace"))
        | scalars.map(str)
    )
    words = st.tuples(st.sampled_from(keys) | texts, values).map("=".join) | texts
    return Target(st.lists(words, min_size=1, max_size=2), read, {ExitCode.USAGE}, examples=100)


def _ids(root: Path) -> Target:
    numbers = st.sampled_from(("1", "0001", "1" * 30, "-1", "0", "٣", "1.0", "")) | texts
    names = st.tuples(st.sampled_from(KINDS) | texts, numbers).map("/".join) | texts
    codes = {ExitCode.USAGE, ExitCode.MISSING}
    return Target(names, Workspace.open(root).get, codes)


# ------------------------------------------------------------------------------------------ arrays


def _episode_images() -> list[bytes]:
    """A shard of a box with facts, and one of a choice without."""
    images = []
    for choice in (False, True):
        writer = EpisodeShardWriter(engine="gymnasium", env="CarRacing-v3", policy="brownian")
        for seed, num_steps in ((1, 3), (2, 20)):
            rng = np.random.default_rng(seed)
            ends = np.arange(num_steps) == num_steps - 1
            writer.append(
                EpisodeRecord(
                    seed=seed,
                    observations=rng.integers(0, 9, (num_steps + 1, 4, 4, 3), dtype=np.uint8),
                    actions=rng.integers(0, 4, num_steps)
                    if choice
                    else rng.random((num_steps, 3), dtype=np.float32),
                    rewards=rng.standard_normal(num_steps),
                    terminations=ends,
                    truncations=~ends & ends,
                    facts={} if choice else {"off_road": ends, "num_tiles": np.arange(num_steps)},
                )
            )
        images.append(writer.image())
    return images


def _latent_images() -> list[bytes]:
    return [
        latents_image(
            LatentRecord(
                seed=seed,
                mu=np.full((num_steps + 1, 4), seed, dtype=np.float16),
                logvar=np.zeros((num_steps + 1, 4), dtype=np.float16),
                actions=np.zeros((num_steps, 3), dtype=np.float32),
                rewards=np.zeros(num_steps),
                terminations=np.arange(num_steps) == num_steps - 1,
                truncations=np.zeros(num_steps, dtype=bool),
            )
            for seed, num_steps in ((1, 3), (2, 300))
        )
    ]


def _shards(reader: type[Shard], folder: Path, images: list[bytes]) -> Target:
    blocks = {len(image): checksummed_blocks(image) for image in images}
    assert all(len(found) > 5 for found in blocks.values()), "the library's metadata has checksums"

    def read(content: bytes) -> None:
        _read_shard(reader, folder, content)

    @st.composite
    def forged(draw: st.DrawFn) -> bytes:
        """Bytes changed inside of metadata, and the checksums made right."""
        image = draw(st.sampled_from(images))
        content = bytearray(image)
        for _ in range(draw(st.integers(1, 3))):
            start, length = draw(st.sampled_from(blocks[len(image)]))
            place = start + draw(st.integers(0, length - 1))
            content[place] = draw(st.sampled_from((0, 1, 2, 127, 128, 255)) | st.integers(0, 255))
        return with_checksums(bytes(content), blocks[len(image)])

    return Target(forged() | forged() | mutated_bytes(*images), read, examples=100)


def _read_shard(reader: type[Shard], folder: Path, content: bytes) -> None:
    """Open a shard of this content, and read everything in it."""
    path = folder / "shard-00000.h5"
    path.unlink(missing_ok=True)  # the library knows files by their number on the device
    path.write_bytes(content)
    with reader(path) as shard:
        for name in reader.layout.columns:
            shard.column(name)
        for number in range(shard.num_episodes):
            shard.episode(number)
        for name in reader.layout.attributes:
            shard.attribute(name)


def _found(folder: Path) -> Target:
    """Shards that crashed or hung the library before something looked at them."""
    files = {
        path.name: lzma.decompress(path.read_bytes())
        for path in sorted(Path(__file__).with_name("found").glob("*.h5.xz"))
    }

    def read(name: str) -> None:
        reader = EpisodeShard if name.startswith("episodes") else LatentShard
        _read_shard(reader, folder, files[name])

    return Target(st.sampled_from(sorted(files)), read, examples=10 * len(files))


def _safetensors() -> Target:
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, dtype=np.int8)}
    content = pack_tensors(tensors, {"step": "1"})
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]

    def file_of(text: bytes) -> bytes:
        return len(text).to_bytes(8, "little") + text + data

    strategy = mutated_json(header).map(written).map(file_of) | mutated_bytes(content)
    return Target(strategy, unpack_tensors, examples=100)


# -------------------------------------------------------------------------------- data of others

ODD = {ExitCode.DAMAGED, ExitCode.USAGE, ExitCode.NUMBERS}


def _archive() -> bytes:
    content = io.BytesIO()
    frames, steps = np.zeros((4, 5, 7, 3), np.uint8), np.zeros(3)
    np.savez(content, observations=frames, actions=steps, rewards=steps, seed=np.int64(1))
    return content.getvalue()


def _archives(folder: Path) -> Target:
    """An episode of others in a NumPy archive."""
    place = folder / "npz"
    place.mkdir()

    def read(content: bytes) -> None:
        (place / "a.npz").write_bytes(content)
        data = NpzData(place, lambda: None)
        data.seeds()
        data.actions()
        for _, reader in data.episodes(lambda frames, _: frames):
            reader()

    return Target(mutated_bytes(_archive()), read, ODD, examples=100)


def _told_data_sets(folder: Path) -> Target:
    """What a folder of archives says of its actions."""
    place = folder / "told"
    place.mkdir()
    (place / "a.npz").write_bytes(_archive())
    actions = {"kind": "box", "size": 1, "low": [-1.0], "high": [1]}
    document = {"format": "wm-npz", "format_version": 1, "actions": actions}

    def read(content: bytes) -> None:
        (place / "dataset.json").write_bytes(content)
        NpzData(place, lambda: None).actions()

    return Target(json_files(document), read)


# -------------------------------------------------------------------------- tables, logs, partials

OUTCOME = {"seed": 1, "total_reward": -1.5, "num_steps": 3, "num_frames": 12, "terminated": True,
           "truncated": False, "stopped": False, "facts": {"off_road": 0.0}}  # fmt: skip
RESULT = {"who": "agent", "outcomes": [OUTCOME, OUTCOME], "errors": [1.5]}


def _horizons() -> Target:
    """What a memory says of its dreams, and the tables of it."""
    numbers = ("error", "error_held", "error_mean", "nll", "nll_held", "nll_mean")
    numbers += ("entropy_floor", "spread", "distance", "distance_real", "lost")
    row: dict[str, Any] = {"steps": 1, "starts": 64, **dict.fromkeys(numbers, 0.5)}
    row["reward"] = dict.fromkeys(("real", "foreseen", "error", "correlation", "slope"), 0.5)
    row["alive"] = dict.fromkeys(("real", "hard", "sampled"), 0.5)
    one = {"steps": 9, "from": 0, "to": 1, **dict.fromkeys(("predicted", "observed"), 0.1)}
    shares = ("observed", "predicted", "unweighted", "error", "error_unweighted")
    scores = ("brier", "brier_unweighted", "brier_rate")
    ends = {"steps": 9, "events": 1, **dict.fromkeys((*shares, *scores), 0.1)}
    counts = ("useful_steps", "starts", "first_frames", "episodes", "dreams")
    document = {
        "horizon": [row, {**row, "reward": None, "alive": None}],
        "ends": {**ends, "bins": [{**one, "unweighted": 0.1}]},
        "end_weight": 10.0,
        **dict.fromkeys(counts, 4),
    }
    found = parse_horizon(json.dumps(document).encode(), source="h")
    assert found == document

    def read(content: bytes) -> None:
        found = parse_horizon(content, source="h")
        _shown(Report("evaluate", tables=tuple(tables(found)), notes=tuple(notes(found))))

    return Target(json_files(document), read)


def _tables(root: Path) -> Target:
    content = (root / "evaluations/0001/episodes.csv").read_bytes()

    def read(found: bytes) -> None:
        rows = read_csv(found, source="t", columns=("who", "terminated"), counts=("num_steps",))
        assert all(int(row["num_steps"]) >= 0 for row in rows)

    return Target(mutated_bytes(content) | st.binary(max_size=64), read)


def _partial(folder: Path, kind: str) -> Partial:
    """An empty place of unfinished work."""
    path = folder / "unfinished" / kind / ".partial-0123456789abcdef"
    shutil.rmtree(path.parent, ignore_errors=True)
    path.mkdir(parents=True)
    lock = StageLock(path.parent / ".lock", kind)
    return Partial(path, kind=kind, fingerprint="0123456789abcdef" * 4, lock=lock)


def _states(folder: Path) -> Target:
    document = {"device": "cpu", "threads": 2, "from": ["vision/0001"]}

    def read(content: bytes) -> None:
        partial = _partial(folder, "memory")
        (partial.path / "state.json").write_bytes(content)
        recorded_in(partial.path)
        partial.open().recorded()

    return Target(json_files(document), read)


def _lines(records: Any) -> bytes:
    """A log of whatever is left of some records."""
    items = records if isinstance(records, list) else [records]
    return b"".join(written(item) + b"\n" for item in items)


def _search_logs(folder: Path) -> Target:
    """The log of a search of two generations, one score, and the tasks of the next generation."""
    from stages.control.restarts import Restarts
    from stages.control.search import SearchShape
    from stages.control.search_log import LOG, PENDING, SearchLog

    shape = SearchShape(num_parameters=3, population=4, sigma=0.1, generations=4, seed=1)

    def search() -> Restarts:
        return Restarts([shape, shape], trial=2)

    partial, begun = _partial(folder, "control").open(), search()
    log = SearchLog(partial, Silent())
    for _ in range(2):
        asked = begun.ask()
        begun.tell(-(asked**2).sum(axis=1))
        log.add_generation(begun, asked, -(asked**2).sum(axis=1), 12)
    log.add_selection(begun, [(1.5, 4)])
    log.add_pending("generation 3", 0, [(2.5, 4), (1.0, 8)])
    files = {
        name: [json.loads(line) for line in (partial.path / name).read_text().splitlines()]
        for name in (LOG, PENDING)
    }
    parse_log([json.dumps(one) for one in files[LOG]], source=LOG)

    def read(example: tuple[str, bytes]) -> None:
        name, content = example
        found = _partial(folder, "control")
        (found.path / name).write_bytes(content)
        log = SearchLog(found.open(), Silent())
        log.replay(search())
        log.pending("generation 3")

    def example(name: str) -> st.SearchStrategy[tuple[str, bytes]]:
        content = mutated_json(files[name]).map(_lines) | mutated_bytes(_lines(files[name]))
        return st.tuples(st.just(name), content)

    return Target(st.sampled_from((LOG, PENDING)).flatmap(example), read)


def _checkpoints(folder: Path) -> Target:
    """What a training run finds when it goes on: state, metrics and checkpoint."""
    import torch

    from stages.training.loop import Plan
    from stages.training.parts import Part
    from stages.training.session import METRICS, Session

    plan = Plan("vision", seed=1, num_steps=2, learning_rate=0.1, log_every=1)

    def train(partial: Partial, steps: int) -> None:
        model = torch.nn.Linear(2, 1)

        def compute() -> dict[str, torch.Tensor]:
            return {"loss": (model(torch.ones(1, 2)) ** 2).sum()}

        resources = Resources(device="cpu", threads=1, checkpoint_seconds=0)
        session = Session(partial, resources, progress=Silent())
        session.fit(model, lambda _: [Part(1.0, compute)], _steps(plan, steps), prefix="vision")

    partial = _partial(folder, "vision")
    train(partial.open(), 2)
    whole = {path.name: path.read_bytes() for path in partial.path.glob("[a-z]*")}
    (checkpoint,) = (name for name in whole if name.startswith("step-000000002"))
    records = [json.loads(line) for line in whole[METRICS].splitlines()]
    length = int.from_bytes(whole[checkpoint][:8], "little")
    header = json.loads(whole[checkpoint][8 : 8 + length])

    def file_of(text: bytes) -> bytes:
        return len(text).to_bytes(8, "little") + text + whole[checkpoint][8 + length :]

    changes = {
        METRICS: mutated_json(records).map(_lines),
        "state.json": mutated_json(json.loads(whole["state.json"])).map(written),
        checkpoint: mutated_json(header).map(written).map(file_of),
    }

    def read(example: tuple[str, bytes]) -> None:
        name, content = example
        found = _partial(folder, "vision")
        for other in (METRICS, "state.json", checkpoint):
            (found.path / other).write_bytes(content if other == name else whole[other])
        train(found.open(), 3)

    strategy = st.sampled_from(sorted(changes)).flatmap(
        lambda name: st.tuples(st.just(name), changes[name])
    )
    codes = {*DAMAGED, ExitCode.NUMBERS, ExitCode.ENVIRONMENT}  # a device that is not here
    return Target(strategy, read, codes)


def _steps(plan: Any, steps: int) -> Any:
    from dataclasses import replace

    return replace(plan, num_steps=steps)


def _reports(root: Path) -> Target:
    """`wm report` of a workspace one of whose manifests says anything at all."""

    def read(example: tuple[str, bytes]) -> None:
        from stages.report.gathering import gather
        from stages.report.page import page

        kind, content = example
        with manifest_in(root / kind / "0001", content):
            seen = gather(root, progress=Silent())
            assert b"<script" not in page(seen, with_films=False)

    return Target(_mutated_manifests(root), read, examples=4)


def _reported_files(root: Path) -> Target:
    """The logs and tables from which a report draws."""
    from stages.report.gathering import episodes_in, metrics_in, search_in

    readers: dict[str, Callable[[bytes], object]] = {
        "vision/0001/metrics.jsonl": lambda content: metrics_in(content, "m"),
        "control/0001/search.jsonl": lambda content: search_in(content, "s", in_dream=True),
        "evaluations/0001/episodes.csv": lambda content: episodes_in(content, "e"),
    }
    contents = [
        mutated_bytes((root / name).read_bytes()).map(lambda found, name=name: (name, found))
        for name in readers
    ]
    return Target(st.one_of(contents), lambda example: readers[example[0]](example[1]))


def _lock_notes(folder: Path) -> Target:
    path = folder / "rollouts" / ".lock"
    path.parent.mkdir()
    told = {"done": 3, "total": 7, "unit": "episodes", "per_second": 0.5, "left_seconds": 8.0}
    told |= {"latest": "loss 3", "doing": "reading", "parts": 1, "of_parts": 2, "workers": 2}
    note = {"host": "here", "process": 1, "since": "2030-01-01T00:00:00+00:00"}
    note |= {"told": told, "told_at": 1.5}

    def read(content: bytes) -> None:
        path.write_bytes(content)
        assert isinstance(StageLock(path, "rollout").stale() or "", str)
        found = running(Workspace(folder))
        assert all(isinstance(line, str) for one in found for line in lines_of(one))
        json.dumps([asdict(one) for one in found], allow_nan=False)
        handle = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            assert isinstance(StageLock(path, "rollout").holder(), str)
        finally:
            os.close(handle)

    return Target(json_files(note), read, set())


def _sidecars(folder: Path) -> Target:
    path = folder / "file.h5"
    line = f"{'0' * 64} 17\n".encode()

    def read(content: bytes) -> None:
        sidecar(path).write_bytes(content)
        assert all(len(digest) == 64 and size >= 0 for digest, size in promised(path))

    return Target(mutated_bytes(line, line * 3) | st.binary(max_size=5000), read)


def outcome(target: Target, example: Any) -> str:
    """ "read", or the name of the error with which it was refused; anything else is raised."""
    try:
        target.read(example)
    except StageError as error:
        assert error.exit_code in target.codes, f"{type(error).__name__}: {error}"
        assert not _out_of_memory(error), f"allocated without bound: {error}"
        assert 0 < len(error.what) < 20_000, "a sentence"
        return type(error).__name__
    return "read"


def _out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):  # the library's own count where they are touched
            return True
        error = error.__cause__ or error.__context__
    return False
