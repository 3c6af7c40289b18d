import errno
import hashlib
import os
import subprocess
import sys

import pytest
from artifact_samples import run_python
from failing_calls import FailingCalls

from stages.artifacts.disk import (
    SystemCalls,
    append_line,
    digest_bytes,
    digest_file,
    make_folder,
    read_file,
    remove_stale_temporaries,
    rename_folder,
    replaced,
    write_file,
)
from stages.errors import ArtifactDamaged, EnvironmentLacks, InputMissing


class TracedCalls(SystemCalls):
    """Writes down what is done, in order, and writes at most seven bytes at a time."""

    def __init__(self):
        self.trace = []
        self.paths = {}

    def create(self, path):
        handle = super().create(path)
        self.paths[handle] = path
        return handle

    def open_folder(self, path):
        handle = super().open_folder(path)
        self.paths[handle] = path
        return handle

    def write(self, handle, content):
        self.trace.append("write")
        return super().write(handle, content[:7])

    def sync(self, handle):
        self.trace.append(f"sync {'folder' if self.paths[handle].is_dir() else 'file'}")
        super().sync(handle)

    def rename(self, source, target):
        self.trace.append("rename")
        super().rename(source, target)


def test_a_file_is_flushed_then_named_then_its_name_is_flushed(tmp_path):
    calls = TracedCalls()
    with replaced(calls):
        write_file(tmp_path / "file", b"eighteen bytes: abc")
    assert calls.trace == ["write"] * 3 + ["sync file", "rename", "sync folder"]
    assert (tmp_path / "file").read_bytes() == b"eighteen bytes: abc"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("at", range(1, 9))
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_failed_write_leaves_the_old_file_or_the_new_one_and_no_temporary(tmp_path, at, code):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    failing = FailingCalls(OSError(code, os.strerror(code)), at=at)
    with replaced(failing):
        try:
            write_file(path, b"new")
        except EnvironmentLacks as error:
            assert "file" in error.what and error.why
    assert path.read_bytes() in (b"old", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    if failing.count < at:
        assert path.read_bytes() == b"new"  # nothing failed


def test_a_full_disk_says_so_and_names_the_file(tmp_path):
    full = FailingCalls(OSError(errno.ENOSPC, "No space left"), at=1, lasting=True, only={"write"})
    with replaced(full), pytest.raises(EnvironmentLacks) as caught:
        write_file(tmp_path / "shard", b"content")
    assert str(tmp_path / "shard") in caught.value.what
    assert "disk is full" in caught.value.why
    assert caught.value.exit_code == 6


def test_a_file_larger_than_the_limit_is_refused_and_the_process_lives():
    script = """
import resource, sys, tempfile
from pathlib import Path
from stages.artifacts.disk import write_file
from stages.errors import EnvironmentLacks
folder = Path(tempfile.mkdtemp(dir=sys.argv[1]))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
write_file(folder / "small", bytes(50_000))
try:
    write_file(folder / "large", bytes(200_000))
except EnvironmentLacks as error:
    print(error.why)
print(sorted(path.name for path in folder.iterdir()))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
write_file(folder / "large", bytes(200_000))
print((folder / "large").stat().st_size)
"""
    why, names, size = run_python(script, os.environ.get("TMPDIR", "/tmp")).splitlines()
    assert "larger than this process may write" in why
    assert names == "['small']"
    assert size == "200000"


def test_a_temporary_left_by_a_dead_process_with_our_number_is_no_obstacle(tmp_path):
    (tmp_path / f".tmp-{os.getpid()}-file").write_bytes(b"cut")
    write_file(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_only_temporaries_of_the_dead_are_removed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "pass"]) as dead:
        dead.wait()
    keep = [f".tmp-{os.getppid()}-a", ".tmp-words-b", "shard-00000.h5"]
    for name in [*keep, f".tmp-{dead.pid}-a", f".tmp-{os.getpid()}-a"]:
        (tmp_path / name).touch()
    remove_stale_temporaries(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(keep)


def test_lines_are_appended_whole(tmp_path):
    for line in ("one", "two"):
        append_line(tmp_path / "log", line)
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


def test_a_folder_never_replaces_another(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "0001").mkdir()  # even an empty one, which the system would replace
    with pytest.raises(EnvironmentLacks, match="0001"):
        rename_folder(tmp_path / "work", tmp_path / "0001")
    assert (tmp_path / "work").is_dir()


def test_a_folder_below_a_file_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentLacks, match="file"):
        make_folder(tmp_path / "file" / "inside")


def test_only_plain_files_of_bounded_size_are_read(tmp_path):
    (tmp_path / "large").write_bytes(bytes(100))
    (tmp_path / "link").symlink_to("large")
    os.mkfifo(tmp_path / "pipe")
    assert read_file(tmp_path / "large", limit=100) == bytes(100)
    with pytest.raises(ArtifactDamaged, match="100 bytes"):
        read_file(tmp_path / "large", limit=99)
    for name in ("link", "pipe"):
        with pytest.raises(ArtifactDamaged, match="plain file"):
            read_file(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "absent")


def test_digests_are_sha256(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert digest_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    assert digest_bytes(b"abc").startswith("ba7816bf8f01cfea")  # FIPS 180-2, appendix B.1
    with pytest.raises(InputMissing):
        digest_file(tmp_path / "absent")
