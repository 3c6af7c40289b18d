"""docs/recipes.md lists every key and every preset as the code has them.

python tests/test_recipes_doc.py    writes its tables anew
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "recipes.md"
SECTION = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def generated() -> dict[str, str]:
    """Name of a generated part of the page -> what must stand there."""
    from stages.pipeline import sections
    from stages.settings.recipes import available, load_recipe
    from stages.settings.schema import describe

    rows = describe(sections("world-models"))
    parts = {"keys": keys_table(rows)}
    for name in available():
        recipe = load_recipe(name)
        values = {"default": {row.key: row.default for row in rows}, "recipe": flat(recipe.tables)}
        for preset, tables in recipe.presets.items():
            values[preset] = flat(tables)
        parts[name] = presets_table(values)
    return parts


def keys_table(rows) -> str:
    lines = ["| key | type | default | range | meaning |", "|---|---|---|---|---|"]
    for row in rows:
        limits = row.limits.replace(" | ", ", ")
        lines.append(f"| `{row.key}` | {row.type} | `{row.default}` | {limits} | {row.doc} |")
    return "\n".join(lines) + "\n"


def presets_table(values: dict[str, dict[str, str]]) -> str:
    """A row per key that the recipe or a preset sets; an empty cell leaves what is to the left."""
    columns = list(values)
    keys = [key for key in values["default"] if any(key in values[name] for name in columns[1:])]
    lines = [f"| key | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for key in keys:
        cells = [f"`{values[name][key]}`" if key in values[name] else "" for name in columns]
        lines.append(f"| `{key}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def flat(tables) -> dict[str, str]:
    from stages.settings.values import value_text

    return {
        f"{section}.{name}": value_text(value)
        for section, table in tables.items()
        for name, value in table.items()
    }


def renewed(page: str) -> str:
    parts = generated()
    return SECTION.sub(lambda found: found[1] + parts[found[2]] + found[3], page)


def test_tables_of_the_page_are_those_of_the_code():
    page = PAGE.read_text(encoding="utf-8")

    assert {found[2] for found in SECTION.finditer(page)} == set(generated())
    assert renewed(page) == page, f"out of date: python {Path(__file__).relative_to(ROOT)}"


def test_every_key_says_what_it_means():
    from stages.pipeline import sections
    from stages.settings.schema import describe

    silent = [row.key for row in describe(sections("world-models")) if len(row.doc) < 10]
    assert silent == []


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
