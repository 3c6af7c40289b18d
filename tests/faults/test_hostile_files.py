"""Files made to do harm, given to the commands that would use them: refused, and nothing is done.

Their digests are right, as a forger would have them. No marker appears, nothing outside of the
workspace is touched, nothing is waited for, and memory stays bounded.
"""

import hashlib
import io
import json
import lzma
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import unicodedata
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from command_line import ROOT, copied, environment, snapshot

from wm_cli.app import run

SECONDS = 60.0
MEMORY = 400 * 2**20  # bytes that a command may add to the peak of this process
VISION, ROLLOUTS = "vision/0001/weights.safetensors", "rollouts/0001/shard-00000.h5"
LATENTS = "latents/0001/shard-00000.h5"


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """The kept workspace of format version 1: every kind of artifact, small."""
    root = tmp_path_factory.mktemp("kept") / "workspace"
    shutil.copytree(ROOT / "tests/formats/v1", root)
    for packed in root.rglob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()
    return root


@pytest.fixture
def workspace(kept, tmp_path) -> Path:
    """A copy whose files may be replaced, never written into."""
    return copied(kept, tmp_path / "workspace", copy=os.link)


@pytest.fixture
def marker(tmp_path) -> Path:
    """What hostile code would make; nobody may."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists(), "code of a file was run"


@pytest.fixture
def said(capfd):
    """Runs a command in this process; what it says on one line. Compares code and memory."""

    def too_late(*_):
        raise TimeoutError("the command waits for something")

    earlier = signal.signal(signal.SIGALRM, too_late)

    def command(*words: object, code: int) -> str:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        signal.setitimer(signal.ITIMER_REAL, SECONDS)  # whoever waits for a pipe is woken up
        found = run([str(word) for word in words])
        signal.setitimer(signal.ITIMER_REAL, 0)
        text = "".join(capfd.readouterr())
        assert found == code, text
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY // 1024
        assert "Traceback" not in text
        return " ".join(text.split())

    yield command
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, earlier)


def wm(*words: object, cwd: Path | None = None) -> tuple[int, str]:
    """Run `wm` in a process of its own, which may not take long."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "wm_cli", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(),
        timeout=SECONDS,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def put(workspace: Path, name: str, content: bytes) -> None:
    """Replace a payload file, and make the digests of its artifact right."""
    path = workspace / name
    path.unlink()
    path.write_bytes(content)

    def change(found):
        for entry in found["files"]:
            if entry["name"] == path.name:
                entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    seal(path.parent, change)


def seal(folder: Path, change) -> None:
    """Change a manifest and make both of its digests right; children still find their parent."""
    found = json.loads((folder / "manifest.json").read_bytes())
    before = found["payload_digest"]
    change(found)
    lines = [f"{one['name']} {one['bytes']} {one['sha256']}\n" for one in found["files"]]
    found["payload_digest"] = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    write_manifest(folder, json.dumps(found).encode())
    for path in folder.parent.parent.glob("*/0001/manifest.json"):
        text = path.read_text()
        if before in text and path.parent != folder:
            write_manifest(path.parent, text.replace(before, found["payload_digest"]).encode())


def write_manifest(folder: Path, content: bytes) -> None:
    for name in ("manifest.json", "manifest.sha256"):
        (folder / name).unlink()
    (folder / "manifest.json").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    (folder / "manifest.sha256").write_text(f"{digest}  manifest.json\n")


# ------------------------------------------------------------------------------- code in weights


class Evil:
    """Makes the marker when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def plain_pickle(marker: Path) -> bytes:
    return pickle.dumps({"encoder.conv1.weight": Evil(marker)})


def torch_archive(marker: Path) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", plain_pickle(marker))
        archive.writestr("archive/version", "3\n")
    return content.getvalue()


def array_of_objects(marker: Path) -> bytes:
    content = io.BytesIO()
    np.save(content, np.array([Evil(marker)], dtype=object), allow_pickle=True)
    return content.getvalue()


@pytest.mark.parametrize("made", [plain_pickle, torch_archive, array_of_objects])
@pytest.mark.parametrize(
    ("name", "reader"),
    [
        (VISION, ("sample-latents", "--force")),
        ("memory/0001/weights.safetensors", ("train-control", "--force")),
        ("control/0001/weights.safetensors", ("evaluate", "--force")),
        (ROLLOUTS, ("train-vision", "--force")),
    ],
)
def test_code_in_place_of_arrays_is_not_run(name, reader, made, workspace, marker, said):
    put(workspace, name, made(marker))
    assert name.rpartition("/")[2] in said(reader[0], "-w", workspace, *reader[1:], code=4)
    assert said("verify", "-w", workspace, code=0), "its digests are right"


def test_a_packed_agent_runs_no_code(tmp_path, marker, said):
    agent = tmp_path / "agent"
    shutil.copytree(ROOT / "tests/formats/agents-v1/thin", agent)
    content = plain_pickle(marker)
    (agent / "vision.safetensors").write_bytes(content)

    def change(found):
        (entry,) = (one for one in found["files"] if one["name"] == "vision.safetensors")
        entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    seal(agent, change)
    told = said("evaluate", "--agent", agent, "-w", tmp_path / "w", code=4)
    assert "vision.safetensors" in told


MODULES = (
    "json",
    "struct",
    "torch",
    "numpy",
    "gymnasium",
    "h5py",
    "stages",
    "cma",
    "sitecustomize",
)


def test_modules_in_the_folder_of_a_command_are_not_imported(workspace, marker):
    """`cd downloaded; wm ...`: neither the command nor its workers take modules from there."""
    for name in MODULES:
        (workspace / f"{name}.py").write_text(f"open({str(marker)!r}, 'w')\n")
    words = ("--force", "--workers", 1, "--set", "latents.batch_size=16")
    code, told = wm("sample-latents", "-w", ".", *words, cwd=workspace)
    assert code == 0, told


# ------------------------------------------------------------------------------------------- HDF5


def replaced(name, **options):
    def change(file, secret):
        del file[name]
        file.create_dataset(name, **options)

    return change


def external_link(file, secret):
    del file["rewards"]
    file["rewards"] = h5py.ExternalLink(str(secret), "/rewards")


def external_storage(file, secret):
    del file["rewards"]
    file.create_dataset("rewards", (12,), "f8", external=[(str(secret), 0, 96)])


def virtual(file, secret):
    layout = h5py.VirtualLayout((12,), "f8")
    layout[:] = h5py.VirtualSource(str(secret), "rewards", (12,))
    del file["rewards"]
    file.create_virtual_dataset("rewards", layout)


def bomb(file, secret):
    """A chunk that unpacks to a thousand times its size."""
    shape = file["observations"].shape
    del file["observations"]
    data = file.create_dataset(
        "observations", shape, "u1", chunks=(16, *shape[1:]), maxshape=(None, *shape[1:]),
        compression="gzip", shuffle=True,
    )  # fmt: skip
    packer = zlib.compressobj(1)
    piece = bytes(2**24)
    content = b"".join([*(packer.compress(piece) for _ in range(20)), packer.flush()])
    data.id.write_direct_chunk((0, 0, 0, 0), content)


def filters_twice(file, secret):
    """gzip within gzip: a million to one."""
    shape = file["observations"].shape
    del file["observations"]
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((1, *shape[1:]))
    for _ in range(2):
        plist.set_filter(h5py.h5z.FILTER_DEFLATE, 0, (9,))
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, b"observations", h5py.h5t.STD_U8LE, space, plist)


def missing_chunks(file, secret):
    file["observations"].resize(10_000, axis=0)


def huge_frames(file, secret):
    """Frames of another size than the manifest tells."""
    rows = len(file["observations"])
    del file["observations"]
    frames = np.zeros((rows, 512, 512, 3), np.uint8)
    file.create_dataset("observations", data=frames, chunks=(1, 512, 512, 3), compression="gzip")


OBJECTS = h5py.string_dtype()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (external_link, "link"),
        (external_storage, "chunks"),
        (virtual, "chunks"),
        (bomb, "bytes required"),
        (filters_twice, "filters"),
        (missing_chunks, "not allocated"),
        (huge_frames, "manifest says (64, 64, 3)"),
        (replaced("rewards", shape=(12,), dtype=OBJECTS, chunks=(12,)), "type"),
        (replaced("rewards", shape=(2**60,), dtype="f8", chunks=(1024,)), "shape"),
        (lambda file, _: file["seeds"].__setitem__(0, -1), "seeds below 0"),
        (lambda file, _: file["step_offsets"].__setitem__(1, 2**62), "offsets"),
    ],
)
def test_a_hostile_shard_is_refused(change, expected, workspace, tmp_path, said):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["rewards"] = np.arange(12.0)
    hostile = tmp_path / "hostile.h5"
    shutil.copy(workspace / ROLLOUTS, hostile)
    with h5py.File(hostile, "r+") as file:
        change(file, secret)
    put(workspace, ROLLOUTS, hostile.read_bytes())
    told = said("train-vision", "-w", workspace, "--force", code=4)
    assert "shard-00000.h5" in told
    assert expected in told


def test_actions_that_are_none_of_the_world_are_refused(workspace, tmp_path, said):
    hostile = tmp_path / "hostile.h5"
    shutil.copy(workspace / ROLLOUTS, hostile)
    with h5py.File(hostile, "r+") as file:
        shape = file["actions"].shape
        del file["actions"]
        file.create_dataset("actions", data=np.full(shape, 2**40), chunks=shape)
    put(workspace, ROLLOUTS, hostile.read_bytes())
    told = said("sample-latents", "-w", workspace, "--force", "--workers", 1, code=4)
    assert "shard-00000.h5 holds actions that are none of this world" in told


def test_latents_of_another_width_than_told_are_refused(workspace, said):
    def change(found):
        found["summary"]["latent_size"] = 2**20

    seal(workspace / "latents/0001", change)
    told = said("train-memory", "-w", workspace, "--force", code=4)
    assert "Rows of mu are (4,), and its manifest says (1048576,)" in told


# ------------------------------------------------------------------------------------ manifests


def place(path: str, value):
    def change(found):
        *inner, last = path.split(".")
        for name in inner:
            found = found[int(name) if isinstance(found, list) else name]
        found[last] = value

    return change


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("vision", place("summary.shape.latent_size", 2**20)),
        ("vision", place("summary.shape.latent_size", 10**18)),
        ("vision", place("summary.shape", None)),
        ("memory", place("summary.shape.hidden_size", 2**20)),
        ("memory", place("summary.shape.num_mixtures", 2**20)),
        ("control", place("summary.shape.num_inputs", 11)),
        ("control", place("summary.pilot", {"__class__": "os.system"})),
        ("control", place("config.world.size", 10**9)),
        ("control", place("parents", [])),
        ("control", place("files.0.name", "../../../marker")),
        ("control", place("files.0.name", "/etc/passwd")),
        ("control", place("summary.engine", {"a": 1})),
    ],
)
def test_a_manifest_that_belies_its_files_is_refused(kind, change, workspace, said):
    seal(workspace / kind / "0001", change)
    before = snapshot(workspace)
    told = said("evaluate", "-w", workspace, "--force", code=4)
    assert f"{kind}/0001" in told or "control/0001/manifest.json does not describe" in told
    assert not list(workspace.glob("evaluations/0002"))
    assert before.keys() <= snapshot(workspace).keys()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000 + "]" * 5000,
        '{"a": 1e999}',
        '{"a": ' + "9" * 5000 + "}",
        '{"a": 1, "a": 2}',
        r'{"a": "\ud800"}',
        '{"a": "' + "\\" * 2_000_001,
        "\x00" * 1000,
    ],
    ids=["deep", "infinite", "huge", "twice", "surrogate", "escapes", "zeros"],
)
def test_hostile_json_is_refused_at_once(text, workspace, said):
    write_manifest(workspace / "vision/0001", text.encode())
    assert "vision/0001" in said("verify", "-w", workspace, code=4)
    (workspace / "workspace.json").write_text(text)
    assert "workspace.json" in said("status", "-w", workspace, code=4)


# ------------------------------------------------- what is no plain file: nothing waits for it


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [
        ("workspace.json", ("status",), 4),
        ("vision/0001/manifest.json", ("verify",), 4),
        (VISION, ("verify",), 4),
        ("vision/.lock", ("status",), 0),
        ("rollouts/.lock", ("rollout", "--force"), 6),
    ],
)
@pytest.mark.parametrize("what", ["pipe", "device", "link", "folder"])
def test_what_is_no_plain_file_is_refused_and_not_waited_for(
    name, words, code, what, workspace, said
):
    if what == "device" and os.geteuid() != 0:
        pytest.skip("only root makes devices")
    path = workspace / name
    path.unlink(missing_ok=True)
    make = {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: os.mknod(path, 0o020666, os.makedev(1, 5)),  # /dev/zero
        "link": lambda: path.symlink_to("/dev/zero"),
        "folder": path.mkdir,
    }[what]
    try:
        make()
    except PermissionError:
        pytest.skip("no devices on this file system")
    said(words[0], "-w", workspace, *words[1:], code=code)


@pytest.mark.parametrize("what", ["pipe", "endless", "folder", "circle", "missing"])
def test_a_recipe_that_is_no_plain_file_is_refused(what, tmp_path, said):
    path = tmp_path / "mine.toml"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what != "missing":
        path.symlink_to("/dev/zero" if what == "endless" else path)
    told = said("config", "-w", tmp_path / "w", "--recipe", path, code=2)
    assert "mine.toml cannot be read" in told


def test_links_lead_no_writing_out_of_the_workspace(workspace, tmp_path, said):
    """A lock, a log and unfinished work that point elsewhere: what lies there stays as it is."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "diary.txt").write_text("dear all")
    words = ("train-memory", "-w", workspace, "--set", "memory.steps=3")
    said(*words, code=0)
    made = json.loads((workspace / "memory/0002/manifest.json").read_bytes())
    shutil.rmtree(workspace / "memory/0002")
    unfinished = workspace / "memory" / f".partial-{made['fingerprint'][:16]}"
    unfinished.symlink_to(outside)
    assert "symbolic link" in said(*words, code=4)
    unfinished.unlink()
    unfinished.mkdir()
    (unfinished / "metrics.jsonl").symlink_to(outside / "diary.txt")
    said(*words, code=4)
    lock = workspace / "memory" / ".lock"
    lock.unlink(missing_ok=True)
    lock.symlink_to(outside / "diary.txt")
    said(*words, "--force", code=6)
    assert [path.name for path in outside.iterdir()] == ["diary.txt"]
    assert (outside / "diary.txt").read_text() == "dear all"


# ---------------------------------------------------------------------------- recipes and names

RECIPE = 'extends = "carracing"\n{}\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[world]\nenv = "os:system"', "registers no environment"),
        ('[world]\nenv = "CarRacing-v3:x"', "is not the name of an environment"),
        ('[world]\nenv = "/tmp/hostile_module:x"', "is not the name of an environment"),
        ('[world]\nenv = "a\\u0000b"', "cannot be printed"),
        ('[world]\nenv = "../../x"', "not known"),
        ("[rollout]\npolicy = \"__import__('os')\"", "policy"),
        ('[rollout]\npolicy = "control/../../x"', "not the id"),
    ],
)
def test_a_recipe_runs_no_code(text, expected, tmp_path, monkeypatch, said):
    (tmp_path / "mine.toml").write_text(RECIPE.format(text))
    monkeypatch.chdir(tmp_path)
    words = ("--preset", "debug", "--set", "world.engine=gymnasium", "--workers", 1)
    told = said("rollout", "-w", "w", "--recipe", "./mine.toml", *words, code=2)
    assert expected in told


def test_a_module_of_a_recipe_is_not_imported_to_look(tmp_path, marker, monkeypatch, said):
    (tmp_path / "hostile_module.py").write_text(f"open({str(marker)!r}, 'w')\n")
    (tmp_path / "mine.toml").write_text(RECIPE.format('[world]\nenv = "hostile_module:Env-v0"'))
    monkeypatch.chdir(tmp_path)
    words = ("--recipe", "./mine.toml", "--preset", "debug")
    said("config", "-w", "w", *words, code=0)
    said("train-vision", "-w", "w", *words, code=3)
    said("status", "-w", "w", *words, code=0)


@pytest.mark.parametrize(
    "text",
    [
        "a." * 40_000 + "a = 1",
        "x = " + "[" * 400 + "]" * 400,
        "[memory]\nsteps = 0x" + "f" * 50_000,
        "[memory]\nsteps = " + "9" * 50_000,
        "[memory]\nlearning_rate = 1e999",
        "[memory]\nlearning_rate = nan",
        "[memory]\nsteps = 1979-05-27T07:32:00Z",
        'extends = "/dev/zero"',
        'extends = "a\\u0000b.toml"',
        'extends = "~nobody-of-this-name/x.toml"',
        'extends = "' + "x/" * 5000 + '"',
    ],
    ids=range(11),
)
def test_a_hostile_recipe_is_refused_at_once(text, tmp_path, said):
    (tmp_path / "mine.toml").write_text(text if "extends" in text else RECIPE.format(text))
    said("config", "-w", tmp_path / "w", "--recipe", tmp_path / "mine.toml", code=2)


ESCAPES = "\x1b]0;owned\x07\x1b[2J\u202e"


def test_names_move_no_cursor(workspace, tmp_path, capfd):
    """Whatever a file calls itself, what is shown of it is written out."""

    def change(found):
        found["summary"] |= {"policy": ESCAPES, ESCAPES: 1}
        found["stage"] = found["recipe"] = found["preset"] = ESCAPES
        found["parents"].append({"id": ESCAPES, "kind": ESCAPES, "payload_digest": "0" * 64})

    seal(workspace / "rollouts/0001", change)
    (tmp_path / "mine.toml").write_text(
        f'name = {json.dumps(ESCAPES)}\nextends = "carracing"\n[world]\nenv = {json.dumps(ESCAPES)}'
    )
    (tmp_path / "strange" / ESCAPES).mkdir(parents=True)
    for words in (
        ("status", "-w", workspace),
        ("verify", "-w", workspace),
        ("train-vision", "-w", workspace, "--set", "world.repeat=9"),
        ("train-vision", "-w", workspace, "--from", ESCAPES),
        ("config", "-w", tmp_path / "w", "--recipe", tmp_path / "mine.toml"),
        ("rollout", "-w", tmp_path / "w", "--recipe", tmp_path / "mine.toml"),
        ("rollout", "-w", tmp_path / "strange"),
        ("status", "-w", tmp_path / "strange" / ESCAPES),
        ("config", "-w", workspace, "--set", f"world.env={ESCAPES}"),
    ):
        run([str(word) for word in words])
        text = "".join(capfd.readouterr())
        strange = {c for c in text if unicodedata.category(c) in ("Cc", "Cf")} - {"\n"}
        assert not strange, (words, strange)
