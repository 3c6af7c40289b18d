import dataclasses
import hashlib
import json

import pytest
from artifact_samples import certificate
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.artifacts.manifest import (
    FileEntry,
    Manifest,
    ParentRef,
    checked_manifest,
    digest_line,
    payload_digest,
)
from stages.errors import ArtifactDamaged

FILES = [FileEntry("b.h5", 10, "1" * 64), FileEntry("a.h5", 0, "2" * 64)]
PARENT = ParentRef("vision/0003", "vision", "3" * 64)


def sample():
    return Manifest.certified(
        certificate(parents=[PARENT]), kind="rollouts", fingerprint="4" * 64, files=FILES
    )


def changed(**changes):
    document = json.loads(sample().to_bytes()) | changes
    return json.dumps(document).encode()


def changed_file(**changes):
    return changed(files=[dataclasses.asdict(FILES[0]) | changes, dataclasses.asdict(FILES[1])])


def test_a_manifest_survives_its_file():
    content = sample().to_bytes()
    assert Manifest.from_bytes(content, source="m") == sample()
    assert checked_manifest(content, digest_line(content), source="m") == sample()


def test_the_payload_digest_is_the_documented_one():
    lines = "a.h5 0 " + "2" * 64 + "\n" + "b.h5 10 " + "1" * 64 + "\n"
    assert sample().payload_digest == hashlib.sha256(lines.encode()).hexdigest()
    assert payload_digest(FILES) == payload_digest(FILES[::-1])


def test_the_digest_file_is_what_sha256sum_writes():
    content = sample().to_bytes()
    assert digest_line(content).decode() == (
        f"{hashlib.sha256(content).hexdigest()}  manifest.json\n"
    )


@pytest.mark.parametrize(
    "name",
    ["../weights", "/etc/passwd", "a/b", "..", ".hidden", "", "a\x00b", "a\n", "manifest.json",
     "manifest.sha256", "C:\\x", "x" * 200],
)  # fmt: skip
def test_names_that_leave_the_folder_are_refused(name):
    with pytest.raises(ArtifactDamaged, match="plain file name"):
        Manifest.from_bytes(changed_file(name=name), source="vision/0001")


@pytest.mark.parametrize(
    "content",
    [
        changed_file(bytes=-1),
        changed_file(bytes=True),
        changed_file(bytes=1.0),
        changed_file(sha256="z" * 64),
        changed_file(name="a.h5"),  # twice
        changed_file(bytes=11),  # the payload digest says otherwise
        changed(files={}),
        changed(parents=["vision/0001"]),
        changed(config=[]),
        changed(stage=None),
        changed(fingerprint="4"),
        changed(format="something"),
        changed(format_version=0),
        changed(format_version="1"),
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"format": "wm-artifact", "format": "wm-artifact"}',
        changed(summary={"x": float("nan")}),
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
        b'{"a": ' + b"9" * 10_000 + b"}",
    ],
    ids=str,
)
def test_what_is_not_a_manifest_is_refused_by_name(content):
    with pytest.raises(ArtifactDamaged, match="vision/0001"):
        Manifest.from_bytes(content, source="vision/0001")


def test_a_newer_format_names_the_version_it_needs_and_the_command():
    with pytest.raises(ArtifactDamaged, match="version 7; this wm reads up to version 1") as caught:
        Manifest.from_bytes(changed(format_version=7), source="vision/0001")
    assert "pip install --upgrade" in caught.value.fix


def test_keys_of_a_later_minor_writer_are_ignored():
    assert Manifest.from_bytes(changed(remark="new"), source="m") == sample()


@settings(max_examples=150)
@given(st.data())
def test_any_changed_bit_of_the_manifest_is_found(data):
    content = bytearray(sample().to_bytes())
    digest = digest_line(bytes(content))
    place = data.draw(st.integers(0, len(content) * 8 - 1))
    content[place // 8] ^= 1 << place % 8
    with pytest.raises(ArtifactDamaged):
        checked_manifest(bytes(content), digest, source="m")


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_bytes_of_any_kind_end_in_a_stage_error(content):
    with pytest.raises(ArtifactDamaged):
        Manifest.from_bytes(content, source="m")
