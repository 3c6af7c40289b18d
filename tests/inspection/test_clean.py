"""What a crash left goes, all of it and whenever it is stopped, and nothing else is touched."""

import errno
import os
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
from failing_calls import FailingCalls, QuickCalls
from leftover_samples import (
    SHARDS,
    InterruptedAt,
    Killed,
    begin,
    cleaned,
    commit,
    cut_commit,
    found_in,
    holding,
    identity,
    kill_a_holder,
    total_bytes,
    tree,
)

from stages.artifacts.disk import SystemCalls, replaced
from stages.artifacts.manifest import digest_line
from stages.artifacts.workspace import Workspace
from stages.clean import clean
from stages.errors import EnvironmentLacks, Interrupted
from stages.events import Silent
from stages.inspection.leftovers import advice, leftovers


def test_an_orderly_end_leaves_nothing(workspace):
    commit(workspace)
    assert leftovers(workspace) == []
    states, report = cleaned(workspace)
    assert states == {} and report.exit_code == 0
    assert report.notes == ("There is nothing to remove.",)


def test_a_killed_holder_leaves_a_lock_that_is_named_and_emptied(workspace):
    commit(workspace)
    pid = kill_a_holder(workspace)
    lock = workspace.root / "rollouts" / ".lock"
    [one] = leftovers(workspace)
    assert (one.what, one.path, one.size.bytes) == ("stale lock", lock, lock.stat().st_size)
    because, _ = advice(workspace, [one])[lock]
    assert f"process {pid} on {os.uname().nodename} since 2" in because
    assert cleaned(workspace)[0] == {"rollouts/.lock": "removed"}
    assert lock.read_bytes() == b"", "it stays in place: a second file would be a second lock"
    assert leftovers(workspace) == []
    with workspace.lock("rollouts"):
        assert workspace.lock_holder("rollouts")


def test_temporaries_of_dead_writers_alone(workspace, dead):
    begin(workspace)  # makes the folder
    workspace.videos()
    places = [workspace.root, workspace.root / "rollouts", workspace.root / "videos"]
    for folder in places:
        (folder / f".tmp-{dead}-film.mp4").write_bytes(b"12345")
        (folder / f".tmp-{os.getppid()}-film.mp4").write_bytes(b"of somebody who lives")
    found = {one.path: one for one in leftovers(workspace) if one.what == "temporary file"}
    assert set(found) == {folder / f".tmp-{dead}-film.mp4" for folder in places}
    assert {one.size.bytes for one in found.values()} == {5}
    cleaned(workspace)
    for folder in places:
        assert not (folder / f".tmp-{dead}-film.mp4").exists()
        assert (folder / f".tmp-{os.getppid()}-film.mp4").exists()


def test_what_a_live_run_holds_is_no_leftover_and_stays(workspace, dead):
    path = begin(workspace)
    (path.parent / f".tmp-{dead}-x").write_bytes(b"x")
    before = tree(path.parent)
    with holding(workspace, "rollouts") as process:
        assert leftovers(workspace) == []
        states, report = cleaned(workspace)
        assert states == {}
        assert f"rollout is at work (process {process.pid} on" in report.notes[1]
        process.stdin.close()
    assert {**tree(path.parent), ".lock": b""} == {**before, ".lock": b""}


def test_a_run_that_began_after_the_listing_keeps_its_work(workspace):
    path = begin(workspace)
    listed = leftovers(workspace)
    with holding(workspace, "rollouts") as process:
        report = clean(workspace, listed, progress=Silent())
        process.stdin.close()
    [row] = report.tables[0].rows
    assert row[1] == "kept" and f"process {process.pid}" in row[5]
    assert report.exit_code == 0 and len(list(path.glob("shard-*"))) == 3


def test_what_changed_after_the_listing_stays(workspace):
    path, other = begin(workspace), begin(workspace, key=identity(3))
    listed = leftovers(workspace)
    begin(workspace, files={"shard-00009.h5": b"new"})
    shutil.rmtree(other)
    report = clean(workspace, listed, progress=Silent())
    assert {row[0].rpartition("/")[2]: row[1] for row in report.tables[0].rows} == {
        path.name: "kept",
        other.name: "kept",
    }
    assert (path / "shard-00009.h5").exists() and report.summary["freed_bytes"] == 0


# ------------------------------------------------------------------------------- finished work


def test_finished_work_without_its_number_is_kept(workspace, dead):
    path = cut_commit(workspace)
    (path / f".tmp-{dead}-x").write_bytes(b"x")
    assert set(found_in(workspace).values()) == {"finished work", "temporary file"}
    states, report = cleaned(workspace)
    name = f"rollouts/{path.name}"
    assert states == {name: "kept", f"{name}/.tmp-{dead}-x": "removed"}
    assert "lacks only its number" in next(row[5] for row in report.tables[0].rows if row[5])
    with workspace.lock("rollouts"):
        artifact = workspace.begin("rollouts", identity()).finished()
    assert artifact.id == "rollouts/0001" and artifact.verify() == []
    assert {name: (artifact.path / name).read_bytes() for name in SHARDS} == SHARDS


# --------------------------------------------------------------------------- and nothing else


def furnish(workspace, outside, dead):
    """A workspace full of what is nobody's leftover; the two things in it that are."""
    commit(workspace)
    path = begin(workspace)
    temporary = workspace.root / f".tmp-{dead}-workspace.json"
    temporary.write_bytes(b"{")
    rollouts = workspace.root / "rollouts"
    outside.mkdir()
    (outside / "precious.txt").write_text("not yours")
    (outside / ".partial-0123456789abcdef").mkdir()
    (outside / ".partial-0123456789abcdef" / "thesis.tex").write_text("years")
    for folder in (workspace.root, rollouts, workspace.videos()):
        (folder / "notes.txt").write_text("mine")
        (folder / ".hidden").write_text("mine")
        (folder / ".tmp-notes").write_text("mine")
        (folder / f".tmp-{dead}x-notes").write_text("mine")
        (folder / f".tmp-{dead}-folder").mkdir()
        (folder / f".tmp-{dead}-folder" / "a.txt").write_text("mine")
        (folder / f".tmp-{dead}-link").symlink_to(outside / "precious.txt")
    for name in ("x", "0123456789abcde", "0123456789abcdefg", "0123456789ABCDEF", "notes"):
        (rollouts / f".partial-{name}").mkdir()
        (rollouts / f".partial-{name}" / "a.txt").write_text("mine")
    (rollouts / ".partial-aaaaaaaaaaaaaaaa").write_text("a file")
    (rollouts / ".partial-bbbbbbbbbbbbbbbb").symlink_to(outside / ".partial-0123456789abcdef")
    (rollouts / "0007").mkdir()
    (rollouts / "0007" / "shard-00000.h5").write_bytes(b"without a manifest")
    (workspace.root / ".partial-0123456789abcdef").mkdir()  # of no kind
    (workspace.root / "vision").symlink_to(outside)
    (path / "away").symlink_to(outside)
    (path / "precious").symlink_to(outside / "precious.txt")
    (path / "deep").mkdir()
    (path / "deep" / "away").symlink_to(outside)
    return path, temporary


def test_only_leftovers_go_from_a_workspace_full_of_other_things(workspace, tmp_path, dead):
    path, temporary = furnish(workspace, tmp_path / "outside", dead)
    gone = {str(one.relative_to(tmp_path)) for one in (path, temporary)}
    before = tree(tmp_path)
    states, report = cleaned(workspace)
    assert report.exit_code == 0
    assert {name for name, state in states.items() if state == "removed"} == {
        f"rollouts/{path.name}",
        temporary.name,
    }
    assert states["rollouts/.partial-bbbbbbbbbbbbbbbb"] == "kept", "a link is shown"
    kept = {name for name in before if not any(Path(name).is_relative_to(one) for one in gone)}
    assert tree(tmp_path) == {name: before[name] for name in kept}
    assert len(kept) > 40
    assert [one.verify() for one in workspace.artifacts("rollouts")] == [[]]


def test_a_folder_or_lock_that_is_a_link_is_not_followed(workspace, tmp_path, dead):
    begin(workspace)
    kill_a_holder(workspace)
    rollouts, elsewhere = workspace.root / "rollouts", tmp_path / "elsewhere"
    rollouts.rename(elsewhere)
    rollouts.symlink_to(elsewhere)
    before = tree(elsewhere)
    states, _ = cleaned(workspace)
    assert set(states.values()) == {"kept"} and len(states) == 2, "the work and the lock"
    assert tree(elsewhere) == before
    rollouts.unlink()
    elsewhere.rename(rollouts)
    (tmp_path / "letter").write_text("dear all")
    (rollouts / ".lock").unlink()
    (rollouts / ".lock").symlink_to(tmp_path / "letter")
    assert set(cleaned(workspace)[0].values()) == {"kept"}
    assert (tmp_path / "letter").read_text() == "dear all"


# --------------------------------------------------------- killed, interrupted, refused half-way


def check_nothing_looks_whole(workspace, path, intact):
    """Unfinished work is there as it was, or a command does not find it any more."""
    if path.exists():
        assert tree(path) == intact
    assert [one.verify() for one in workspace.artifacts("rollouts")] == [[]]


@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_a_clean_that_ends_at_any_moment_leaves_a_consistent_state(tmp_path, dead, how):
    for at in range(1, 100):
        workspace = Workspace.open(tmp_path / str(at), create=True)
        with replaced(QuickCalls()):
            commit(workspace)
            path = begin(workspace)
        (workspace.root / f".tmp-{dead}-x").write_bytes(b"x")
        intact = tree(path)
        listed = leftovers(workspace)
        calls = FailingCalls(Killed(), at=at, lasting=True)
        monitor = InterruptedAt(at) if how == "interrupted" else Silent()
        ended = False
        with replaced(calls if how == "killed" else QuickCalls()):
            try:
                clean(workspace, listed, progress=monitor)
                ended = True
            except Killed:
                pass
            except Interrupted as stop:
                rest = len(leftovers(workspace))
                assert f"Stopped: {len(listed) - rest} of 2 things were removed." in stop.what
                assert "wm clean" in stop.fix
        check_nothing_looks_whole(workspace, path, intact)
        begin(workspace)  # the stage was started again, and killed, before the next clean
        clean(workspace, leftovers(workspace), progress=Silent())
        assert leftovers(workspace) == []
        assert {one.name for one in path.parent.iterdir()} == {".lock", "0001"}
        assert begin(workspace) == path, "the same work begins anew"
        if ended:
            break
    assert at > 5


def test_a_call_that_fails_anywhere_is_told_with_its_path(tmp_path, dead):
    error = OSError(errno.EPERM, "Operation not permitted")
    for at in range(1, 100):
        workspace = Workspace.open(tmp_path / str(at), create=True)
        with replaced(QuickCalls()):
            commit(workspace)
            path = begin(workspace)
        temporary = workspace.root / f".tmp-{dead}-x"
        temporary.write_bytes(b"x")
        intact, size = tree(path), total_bytes(path) + 1
        listed = leftovers(workspace)
        calls = FailingCalls(error, at=at, only={"remove", "rename"})
        with replaced(calls):
            report = clean(workspace, listed, progress=Silent())
        if calls.count < at:
            break
        states = [row[1] for row in report.tables[0].rows]
        assert sorted(states) == ["failed", "removed"], "what does not resist is removed"
        assert report.exit_code == 6
        [because] = [row[5] for row in report.tables[0].rows if row[1] == "failed"]
        assert str(workspace.root) in because and "Permission denied" in because
        check_nothing_looks_whole(workspace, path, intact)
        left = sum(one.size.bytes for one in leftovers(workspace))
        assert report.summary["freed_bytes"] == size - left
        assert ("It is as it was." in because) == path.exists()
        assert set(cleaned(workspace)[0].values()) == {"removed"}
        assert leftovers(workspace) == []
    assert at > 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do anything")
def test_folders_without_permission_are_told(workspace):
    path = begin(workspace)
    path.parent.chmod(0o555)
    try:
        states, report = cleaned(workspace)
        path.parent.chmod(0)
        with pytest.raises(EnvironmentLacks, match="rollouts"):
            leftovers(workspace)
    finally:
        path.parent.chmod(0o755)
    assert set(states.values()) == {"failed"} and report.exit_code == 6
    assert len(list(path.glob("shard-*"))) == 3


@pytest.mark.parametrize("harm", ["newer", "unreadable"])
def test_work_that_may_be_finished_is_kept(harm, workspace):
    """Another version of wm may have finished it, or the disk may come back."""
    path, stack = cut_commit(workspace), ExitStack()
    if harm == "newer":
        content = (path / "manifest.json").read_bytes()
        newer = content.replace(b'"format_version": 1', b'"format_version": 2')
        (path / "manifest.json").write_bytes(newer)
        (path / "manifest.sha256").write_bytes(digest_line(newer))
    else:

        class Unreadable(SystemCalls):
            def open_read(self, path):
                raise OSError(errno.EIO, "Input/output error")

        stack.enter_context(replaced(Unreadable()))
    with stack:
        states, report = cleaned(workspace)
    assert states == {f"rollouts/{path.name}": "kept"}
    assert "It may be finished" in report.tables[0].rows[0][5]
