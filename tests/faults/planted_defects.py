"""A script: plants defects in wm, one after the other, and tortures it; prints what was noticed.

Every defect breaks a promise that nobody would see broken without harm. Lanes are forked, so they
have the defect too.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy loads: it starts no thread

import contextlib
import json
import sys
import time
from itertools import islice
from pathlib import Path
from unittest import mock

from torture import bits, calls, lanes, selfkills
from torture.processes import warm
from torture.scenes import Scene


def published_too_early():
    """The folder gets its number before its manifest is in it."""
    from stages.artifacts import partial
    from stages.artifacts.disk import write_file

    late = {}

    def write_later(path, content):
        if path.name.startswith("manifest."):
            late[path.name] = content
        else:
            write_file(path, content)

    def rename_and_write(source, target):
        rename_folder(source, target)
        for name, content in late.items():
            write_file(target / name, content)

    rename_folder = partial.rename_folder
    return (
        mock.patch.object(partial, "write_file", write_later),
        mock.patch.object(partial, "rename_folder", rename_and_write),
    )


def temporaries_left():
    """A write that fails leaves its temporary file."""
    from stages.artifacts import disk

    def careless(path, content):
        with disk.explained("write", path):
            temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
            disk._write_new(temporary, content)
            disk._calls.get().rename(temporary, path)
            disk._sync_folder(path.parent)

    from stages.artifacts import partial, sidecars, workspace

    return tuple(
        mock.patch.object(room, "write_file", careless) for room in (partial, sidecars, workspace)
    )


def digests_believed():
    """A file of an artifact is checked by its size alone."""
    from stages.artifacts import artifact

    def believed(path):
        manifest = json.loads((path.parent / "manifest.json").read_bytes())
        known = {entry["name"]: entry["sha256"] for entry in manifest["files"]}
        return known[path.name]

    return (mock.patch.object(artifact, "digest_file", believed),)


def rot_adopted():
    """Whatever lies in unfinished work counts as written."""
    from stages.artifacts import partial, sidecars

    def whatever(path):
        found = sidecars.content_of(path)
        return [] if found is None else [found]

    return (
        mock.patch.object(partial, "promised", whatever),
        mock.patch.object(partial, "is_promised", lambda content, contents: True),
    )


def committing(scene):
    """Deaths in the last calls of a stage."""
    end = len(scene.calls("latents")) - 12
    return [one for one in selfkills.cases(scene) if one.kind == "latents" and one.at > end]


def failing(scene):
    """Failures of single calls of a stage that writes little."""
    return [one for one in calls.cases(scene) if one.kind == "memory" and not one.lasting][:40:4]


def flipped(scene, target, *, kinds, number):
    """Flipped bits in files of this target, before stages that make these kinds."""
    fitting = (
        one
        for one in bits.cases(scene)
        if one.target == target and one.harm == bits.FLIP and one.kind in kinds
    )
    return list(islice(fitting, number))


def in_artifacts(scene):
    return flipped(scene, "latents", kinds=bits.READERS["latents"], number=6)


def in_shards(scene):
    return flipped(scene, bits.PARTIAL, kinds=("rollouts", "latents"), number=12)


DEFECTS = {
    "published too early": (published_too_early, selfkills, committing),
    "temporaries left": (temporaries_left, calls, failing),
    "digests believed": (digests_believed, bits, in_artifacts),
    "rot adopted": (rot_adopted, bits, in_shards),
}


def lost(slice_of, scene, cases):
    """How many of these cases lost something, and the first message."""
    end, keep = time.monotonic() + 600, scene.folder / "lost"
    results = [
        f.tally["lost"] for f in lanes.run(slice_of, scene, lambda: cases, end=end, keep=keep)
    ]
    messages = [text for text in results if text]
    return {"cases": len(results), "lost": len(messages), "first": messages[:1]}


def main(folder: Path) -> None:
    warm()
    scene = Scene(folder, seed=1, quick=True)
    bits.prepare(scene)
    found = {}
    for name, (plant, slice_of, choose) in DEFECTS.items():
        cases = choose(scene)
        healthy = lost(slice_of, scene, cases)
        with contextlib.ExitStack() as stack:
            for patch in plant():
                stack.enter_context(patch)
            found[name] = {"healthy": healthy, "planted": lost(slice_of, scene, cases)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
