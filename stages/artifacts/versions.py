"""Where and with what an artifact was made: told, and never part of its fingerprint."""

import os
import platform
import re
import socket
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "wm-pixels",
    "numpy",
    "torch",
    "h5py",
    "safetensors",
    "cma",
    "gymnasium",
    "ale-py",
    "envpool",
    "pygame-ce",
)
BOX2D_PACKAGES = ("Box2D", "box2d-py", "box2d-kengz")  # distributions of one binding


def provenance(*, device: str, threads: int) -> dict[str, Any]:
    """Versions of what shapes results, and the machine; nothing is imported."""
    return {
        "packages": package_versions(),
        "box2d": box2d_distributions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "host": socket.gethostname(),
        "device": device,
        "threads": threads,
    }


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that shape results; absent ones are left out."""
    found = {name: installed_version(name) for name in PACKAGES}
    return {name: text for name, text in found.items() if text is not None}


def box2d_distributions() -> list[str]:
    """Distributions of the Box2D binding that are installed; more than one overwrite each other."""
    found = {name: installed_version(name) for name in BOX2D_PACKAGES}
    return [f"{name} {text}" for name, text in found.items() if text is not None]


def installed_version(package: str) -> str | None:
    """Version of an installed distribution, without importing it; None when there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """Name of the processor; floating point may differ between types."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()
