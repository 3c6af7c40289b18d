"""What `auto` precision becomes, and that a workspace keeps it."""

import json

import pytest
import torch

from stages.artifacts.workspace import Workspace
from stages.events import Silent
from stages.pipeline import Request, prepare, settle
from stages.training import precision
from stages.training.precision import native_precision, training_dtype


def cpuinfo(path, line):
    path.write_text(f"processor\t: 0\nmodel name\t: amx_bf16 in a name\n{line}\n\n", "utf-8")
    return path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags\t\t: fpu avx2 avx512f amx_bf16", "bfloat16"),
        ("flags\t\t: fpu avx512f avx512_bf16 sse", "bfloat16"),
        ("Features\t: fp asimd i8mm bf16", "bfloat16"),
        ("flags\t\t: fpu avx2 avx512f", "float32"),
        ("Features\t: fp asimd", "float32"),
    ],
)
def test_auto_asks_the_processor(tmp_path, monkeypatch, line, expected):
    monkeypatch.setattr(precision, "_CPU_FILE", cpuinfo(tmp_path / "cpuinfo", line))
    assert native_precision("cpu") == expected
    assert native_precision("mps") == "float32"


def test_unknown_processors_get_float32(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "_CPU_FILE", tmp_path / "absent")
    assert native_precision("cpu") == "float32"


def test_types():
    assert training_dtype("float32") == torch.float32
    assert training_dtype("bfloat16") == torch.bfloat16
    with pytest.raises(AssertionError, match="auto"):
        training_dtype("auto")


def on(monkeypatch, found):
    monkeypatch.setattr("stages.pipeline.native_precision", lambda _device: found)


def values(settings):
    return [settings.sections[name].precision for name in ("vision", "memory")]


def test_a_workspace_keeps_what_auto_was_when_it_began(tmp_path, monkeypatch):
    root = tmp_path / "workspace"
    on(monkeypatch, "bfloat16")
    prepared = prepare(root, Request(overrides=("memory.precision=float32",)), progress=Silent())
    assert values(prepared.settings) == ["bfloat16", "float32"]
    assert prepared.settings.origins["vision.precision"] == "auto: bfloat16"
    on(monkeypatch, "float32")  # carried to another machine
    assert values(settle(root, Request()).settings) == ["bfloat16", "float32"]
    again = settle(root, Request(overrides=("memory.precision=auto",))).settings
    assert values(again) == ["bfloat16", "bfloat16"]


def test_an_older_workspace_gets_one(tmp_path, monkeypatch):
    root = tmp_path / "workspace"
    on(monkeypatch, "bfloat16")
    prepare(root, Request(), progress=Silent())
    record = json.loads((root / "workspace.json").read_text())
    del record["settings"]["precision"], record["settings_sha256"]
    (root / "workspace.json").write_text(json.dumps(record))
    on(monkeypatch, "float32")
    assert values(prepare(root, Request(), progress=Silent()).settings) == ["float32", "float32"]
    assert Workspace.open(root).settings()["precision"] == "float32"
