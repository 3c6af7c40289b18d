"""A power cut at any moment: what was not flushed may be lost, and no artifact is then half there.

The calls of a whole stage are recorded and replayed up to every moment. Of the names in a folder
those survive that were flushed with it, and any number of the later ones, in order; of a file the
bytes that were flushed.
"""

import hashlib
import itertools
import json
from pathlib import Path

import pytest
from artifact_samples import commit, new_workspace, sample_files
from failing_calls import QuickCalls

from stages.artifacts.disk import replaced


class Recording(QuickCalls):
    """Writes down what happens to names and bytes; a file is known by a number of its own."""

    def __init__(self):
        self.trace = []
        self.handles = {}
        self.named = {}
        self.files = itertools.count()

    def create(self, path):
        handle = super().create(path)
        self._begin(path)
        self.handles[handle] = self.named[path]
        return handle

    def open_end(self, path):
        handle = super().open_end(path)
        if path not in self.named:
            self._begin(path)
        self.handles[handle] = self.named[path]
        return handle

    def _begin(self, path):
        self.named[path] = next(self.files)
        self.trace.append(("name", path, self.named[path]))

    def open_folder(self, path):
        handle = super().open_folder(path)
        self.handles[handle] = path
        return handle

    def write(self, handle, content):
        written = super().write(handle, content)
        self.trace.append(("bytes", self.handles[handle], bytes(content[:written])))
        return written

    def sync(self, handle):
        self.trace.append(("sync", self.handles[handle], None))

    def rename(self, source, target):
        super().rename(source, target)
        self.named[target] = self.named.pop(source, None)
        self.trace.append(("rename", target, source))

    def remove(self, path):
        super().remove(path)
        self.named.pop(path, None)
        self.trace.append(("remove", path, None))


def survivors(trace, num_lucky):
    """Names and bytes after a cut: {path: content}. The first `num_lucky` names survive anyway."""
    names, contents, flushed = {}, {}, {}
    last_sync = {what: i for i, (kind, what, _) in enumerate(trace) if kind == "sync"}
    for i, (kind, what, detail) in enumerate(trace):
        if kind == "bytes":
            contents[what] = contents.get(what, b"") + detail
        elif kind == "sync":
            flushed[what] = contents.get(what, b"")
        elif i < num_lucky or i < last_sync.get(what.parent, -1):
            apply(names, kind, what, detail)
    return {path: flushed.get(file, b"") for path, file in names.items()}


def apply(names, kind, path, detail):
    if kind == "name":
        names[path] = detail
    elif kind == "remove":
        names.pop(path, None)
    else:
        for old in [old for old in names if old == detail or old.is_relative_to(detail)]:
            names[path / old.relative_to(detail)] = names.pop(old)


def artifacts(files):
    """Folders that a reader would take for artifacts."""
    return [path.parent for path in files if path.name == "manifest.json" and is_numbered(path)]


def is_numbered(path):
    return path.parent.name.isdigit()


def is_whole(files, folder):
    manifest = files[folder / "manifest.json"]
    line = f"{hashlib.sha256(manifest).hexdigest()}  manifest.json\n"
    return files.get(folder / "manifest.sha256") == line.encode() and all(
        hashlib.sha256(files.get(folder / entry["name"], b"")).hexdigest() == entry["sha256"]
        for entry in json.loads(manifest)["files"]
    )


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """Everything that two commits do to the disk."""
    folder: Path = tmp_path_factory.mktemp("cut")
    recording = Recording()
    with replaced(recording):
        workspace = new_workspace(folder)
        for number in (1, 2):
            commit(workspace, number=number, files={**sample_files(), "n.txt": b"%d" % number})
    return recording.trace


def test_no_cut_leaves_half_an_artifact(trace):
    seen = set()
    for stop in range(len(trace) + 1):
        for num_lucky in range(stop + 1):
            files = survivors(trace[:stop], num_lucky)
            found = artifacts(files)
            assert all(is_whole(files, folder) for folder in found)
            seen.add(len(found))
    assert seen == {0, 1, 2}


def test_what_a_stage_returned_survives_any_cut(trace):
    files = survivors(trace, 0)
    assert sorted(folder.name for folder in artifacts(files)) == ["0001", "0002"]


@pytest.mark.parametrize("forgotten", ["file", "folder"])
def test_the_model_notices_a_forgotten_flush(trace, forgotten):
    kind = int if forgotten == "file" else Path
    careless = [op for op in trace if not (op[0] == "sync" and isinstance(op[1], kind))]
    halves = [
        folder
        for stop in range(len(careless) + 1)
        for num_lucky in range(stop + 1)
        for files in [survivors(careless[:stop], num_lucky)]
        for folder in artifacts(files)
        if not is_whole(files, folder)
    ]
    lost = len(artifacts(survivors(careless, 0))) < 2
    assert halves or lost
