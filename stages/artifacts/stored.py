"""workspace.json: the settings that later commands inherit, and how they are known to be whole."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from stages.artifacts.canonical import canonical_json, readable_json
from stages.artifacts.disk import digest_bytes
from stages.artifacts.manifest import check_format
from stages.artifacts.plain import COUNT, OBJECT, TEXT, fault, keyed, listed, optional, parse_json
from stages.errors import ArtifactDamaged, InputsMismatch
from stages.settings.recipes import Recipe

FORMAT = "wm-workspace"
FORMAT_VERSION = 1
SETTINGS, DIGEST = "settings", "settings_sha256"
_KNOWN = {"format", "format_version", SETTINGS, DIGEST}
_BINDING = ("preset", "seed", "overrides", "engine", "precision")  # and the recipe's name
_RECIPE = {field.name for field in fields(Recipe)}
_SETTINGS = {
    "recipe.name": TEXT,
    "recipe.family": TEXT,
    "recipe.description": TEXT,
    "recipe.default_preset": TEXT,
    "recipe.tables": keyed(OBJECT),
    "recipe.presets": keyed(keyed(OBJECT)),
    "recipe.authors": keyed(TEXT),
    "preset": optional(TEXT),
    "seed": COUNT,
    "overrides": listed(TEXT),
    "engine": TEXT,
    "precision": optional(TEXT),
}


def document_of(settings: Mapping[str, Any] | None) -> bytes:
    """The content of workspace.json."""
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        SETTINGS: settings,
        DIGEST: digest_bytes(canonical_json(settings)),
    }
    return readable_json(document)


def settings_in(content: bytes, *, source: str) -> dict[str, Any] | None:
    """The settings in this content of workspace.json; None where none are stored yet.

    Raises:
        ArtifactDamaged: it is not what was written, or of a newer format.
    """
    document = parse_json(content, source=source)
    check_format(document, name=FORMAT, version=FORMAT_VERSION, source=source)
    if wrong := _fault(document):
        raise ArtifactDamaged(f"{source} is not what was written.", why=f"{wrong}.")
    settings: dict[str, Any] | None = document[SETTINGS]
    return settings


def rebound(root: Path, stored: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Refuse to work with other settings than those that the workspace now belongs to."""
    pairs = [("recipe", stored["recipe"]["name"], own["recipe"]["name"])]
    pairs += [(name, stored.get(name), own.get(name)) for name in _BINDING]
    sides = [f"{name}: {now} now, {mine} here" for name, now, mine in pairs if now != mine]
    if sides:
        raise InputsMismatch(
            f"{root} belongs to other settings than when this command began.",
            why=f"Another first command stored its own: {'; '.join(sides)}.",
            fix="Run this command again, or in another folder (-w).",
        )


def _fault(document: Mapping[str, Any]) -> str:
    """What is wrong with the document, in words; empty when nothing is."""
    if strangers := set(document) - _KNOWN:
        return f"It holds {min(strangers)!r}"
    if SETTINGS not in document:
        return "It has no settings"
    settings, promised = document[SETTINGS], document.get(DIGEST)
    # Earlier versions of wm promised nothing.
    if promised is not None and promised != digest_bytes(canonical_json(settings)):
        return f"Its settings differ from their digest ({DIGEST}) in the same file"
    if settings is None:
        return ""
    strange = [] if type(settings) is not dict else set(settings.get("recipe") or ()) - _RECIPE
    return fault(settings, _SETTINGS) or (f"its recipe has {min(strange)!r}" if strange else "")
