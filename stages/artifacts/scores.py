"""Scores and logs as text: a table of episodes, and lines that a killed run can go on with."""

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from stages.artifacts.canonical import plain_value
from stages.artifacts.plain import Rule, parse_record
from stages.errors import ArtifactDamaged, NumbersBad

_COUNT = re.compile(r"\d{1,18}", re.ASCII)
Cell = str | int | float | bool | None


def episodes_csv(rows: Sequence[Mapping[str, Cell]]) -> bytes:
    """A CSV table with one line per episode; the columns are those of the first row.

    Floats are written so that reading them gives the same number, booleans as 0 and 1, and None as
    nothing.
    """
    columns = list(rows[0]) if rows else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        assert list(row) == columns, f"columns {list(row)}, not {columns}"
        writer.writerow([_cell(row[name]) for name in columns])
    return text.getvalue().encode()


def _cell(value: Cell) -> str:
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value)


def read_csv(
    content: bytes, *, source: str, columns: Sequence[str] = (), counts: Sequence[str] = ()
) -> list[dict[str, str]]:
    """Rows of a CSV table as texts.

    Raises:
        ArtifactDamaged: it is no table, a row has another number of cells, one of these columns is
            missing, or one of these counts is no whole number.
    """
    try:
        rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ArtifactDamaged(f"{source} is not a table.", why=f"{error}.") from error
    header, body = (rows[0], rows[1:]) if rows else ([], [])
    missing = [name for name in (*columns, *counts) if name not in header]
    if missing:
        raise ArtifactDamaged(f"{source} has no column {missing[0]!r}.")
    for number, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise ArtifactDamaged(f"{source} has {len(row)} cells in line {number}.")
    found = [dict(zip(header, row, strict=True)) for row in body]
    for number, cells in enumerate(found, start=2):
        for name in counts:
            if not _COUNT.fullmatch(cells[name]):
                shown = f"{cells[name]!r:.60}"
                raise ArtifactDamaged(f"{source} has {shown} as {name} in line {number}.")
    return found


def log_line(values: Mapping[str, Any]) -> str:
    """One line of a log: JSON in the order given, floats exact.

    Raises:
        NumbersBad: a number is NaN or infinite.
    """
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise NumbersBad(f"{name} is {value}.", why="Only finite numbers are logged.")
    return json.dumps(plain_value(values), separators=(", ", ": "), allow_nan=False)


def parse_log(
    lines: Sequence[str], *, source: str, rules: Mapping[str, Rule] | None = None
) -> list[dict[str, Any]]:
    """The records of a log's complete lines (`Partial.lines`), each with these values.

    Raises:
        ArtifactDamaged: a line is not such a record; its number is named.
    """
    return [
        parse_record(line.encode(), source=f"{source}, line {number},", rules=rules or {})
        for number, line in enumerate(lines, start=1)
    ]
