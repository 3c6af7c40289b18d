"""Scores and logs as text: a table of episodes, and lines that a killed run can go on with."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from stages.artifacts.canonical import plain_value
from stages.artifacts.manifest import parse_json
from stages.errors import ArtifactDamaged, NumbersBad

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


def read_csv(content: bytes, *, source: str) -> list[dict[str, str]]:
    """Rows of a CSV table as texts; ArtifactDamaged when a row has another number of cells."""
    rows = list(csv.reader(io.StringIO(content.decode())))
    header, body = (rows[0], rows[1:]) if rows else ([], [])
    for number, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise ArtifactDamaged(f"{source} has {len(row)} cells in line {number}.")
    return [dict(zip(header, row, strict=True)) for row in body]


def log_line(values: Mapping[str, Any]) -> str:
    """One line of a log: JSON in the order given, floats exact.

    Raises:
        NumbersBad: a number is NaN or infinite.
    """
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise NumbersBad(f"{name} is {value}.", why="Only finite numbers are logged.")
    return json.dumps(plain_value(values), separators=(", ", ": "), allow_nan=False)


def parse_log(lines: Sequence[str], *, source: str) -> list[dict[str, Any]]:
    """The records of a log's complete lines (`Partial.lines`).

    Raises:
        ArtifactDamaged: a line is not a record; its number is named.
    """
    records = []
    for number, line in enumerate(lines, start=1):
        record = parse_json(line.encode(), source=f"{source}, line {number},")
        if not isinstance(record, dict):
            raise ArtifactDamaged(f"{source}, line {number}, is not a record.")
        records.append(record)
    return records
