"""What a command shows: its Report on stdout, errors on stderr, no colours in a pipe."""

import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table as RichTable
from rich.text import Text

from stages.errors import ExitCode, Interrupted, StageError
from stages.events import Report, Scalar, Table
from wm_cli.wording import cell, is_bytes, is_seconds, printable

BELOW = ("because", "fix", "used", "path")  # sentences, commands, paths: shown below their table
UNFOLDED = 10_000  # columns of a pipe: nothing in it is folded, so that a line can be searched
STATE_STYLES = {  # cells of columns named "state"
    "fresh": "green",
    "ok": "green",
    "made": "green",
    "removed": "green",
    "up to date": "green",
    "stale": "yellow",
    "partial": "yellow",
    "kept": "yellow",
    "running": "cyan",
    "warning": "yellow",
    "missing": "yellow",
    "waiting": "dim",
    "damaged": "red",
    "failed": "red",
}


def console(*, stderr: bool = False) -> Console:
    """A console for one stream; text is never taken for markup, colours only where wanted."""
    coloured = not os.environ.get("NO_COLOR")
    stream = sys.stderr if stderr else sys.stdout
    asked = os.environ.get("COLUMNS", "").isdigit()
    return Console(
        stderr=stderr,
        width=None if stream.isatty() or asked else UNFOLDED,
        markup=False,
        emoji=False,
        highlight=False,
        color_system="auto" if coloured else None,
    )


@contextlib.contextmanager
def reserved_stdout() -> Iterator[None]:
    """While the block runs, what libraries and workers print to stdout goes to stderr.

    So that stdout carries the report alone, also below Python's own streams.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def show_report(report: Report, *, as_json: bool) -> None:
    """Write a report to stdout, for people or as one JSON object."""
    screen = console()
    if as_json:
        screen.print(json_text(report), soft_wrap=True)
        return
    if report.artifact or report.path:
        _print_headline(screen, report)
    if report.summary:
        _lay(screen, Padding(_summary_grid(report.summary), (0, 0, 0, 2), expand=False))
    for table in report.tables:
        if "meaning" in table.columns:
            _print_glossary(screen, table)
        else:
            _print_table(screen, table)
    if report.tables and report.notes:
        screen.print()
    for note in report.notes:
        screen.print(Text(printable(note)), soft_wrap=_is_pasted(note))


def _is_pasted(note: str) -> bool:
    """Whether a note holds a path or a command, which would be cut in two where it is folded."""
    return "/" in note or "wm " in note


def show_proposal(table: Table) -> None:
    """Write a table to stderr, above the question about it."""
    _print_table(console(stderr=True), table)


def json_text(report: Report) -> str:
    """The report as JSON: rows are objects, and numbers that are not finite are null."""
    tables = [
        {
            "title": table.title,
            "rows": [dict(zip(table.columns, row, strict=True)) for row in table.rows],
        }
        for table in report.tables
    ]
    document = {
        "command": report.command,
        "artifact": report.artifact,
        "path": report.path,
        "up_to_date": report.up_to_date,
        "exit_code": report.exit_code,
        "summary": dict(report.summary),
        "tables": tables,
        "notes": list(report.notes),
    }
    return json.dumps(_finite(document), indent=1, allow_nan=False)


def show_error(command: str, error: StageError) -> None:
    """Say what went wrong, why, and what to do about it, on stderr."""
    interrupted = isinstance(error, Interrupted)
    _show_problem(
        f"wm {command}".strip(),
        (error.what, error.why, error.fix),
        colour="yellow" if interrupted else "red",
        code=error.exit_code,
    )


def show_defect(error: BaseException) -> None:
    """Say that wm itself is at fault, on stderr."""
    kind = type(error).__name__
    _show_problem(
        "a defect in wm",
        (
            f"{kind}: {error}" if str(error) else kind,
            "This should not have happened; what was finished is kept.",
            "Run the same command with --debug to see where it happened.",
        ),
        colour="red",
        code=ExitCode.INTERNAL,
    )


def _show_problem(title: str, parts: tuple[str, str, str], *, colour: str, code: ExitCode) -> None:
    screen = console(stderr=True)
    what, why, fix = (printable(part) for part in parts)
    if not screen.is_terminal:  # one sentence per line, unbroken, for logs and for grep
        lines = [f"{title}: {what}", *(f"  {part}" for part in (why, fix) if part)]
        screen.print("\n".join(lines), soft_wrap=True)
        return
    text = Text(what, style="bold")
    if why:
        text.append(f"\n{why}", style="not bold")
    if fix:
        text.append(f"\n{fix}", style="not bold cyan")
    subtitle = f"exit code {int(code)}"
    screen.print(
        Panel(text, title=title, title_align="left", subtitle=subtitle, border_style=colour)
    )


def _print_headline(screen: Console, report: Report) -> None:
    line = Text(f"{report.command}:")
    if report.artifact:
        state = "up to date" if report.up_to_date else "made"
        line.append(f" {report.artifact}", style="bold")
        line.append(f" {state}", style=STATE_STYLES[state])
    if report.path:
        line.append(f" {printable(report.path)}")
    screen.print(line, soft_wrap=True)


def _summary_grid(summary: Mapping[str, Scalar]) -> RichTable:
    grid = RichTable.grid(padding=(0, 2))
    for name, value in summary.items():
        grid.add_row(Text(_heading(name)), Text(cell(value, column=name)))
    return grid


def _print_table(screen: Console, table: Table) -> None:
    """A table, and below it, one unbroken line each, the cells that are too long for a column."""
    beside = [i for i, column in enumerate(table.columns) if column not in BELOW]
    below = [i for i, column in enumerate(table.columns) if column in BELOW]
    columns = tuple(table.columns[i] for i in beside)
    rows = [tuple(row[i] for i in beside) for row in table.rows]
    screen.print()
    screen.print(Text(printable(table.title), style="bold"), soft_wrap=True)
    if len(columns) > 1 or not below:
        _lay(screen, _fitting(screen, columns, rows))
    for row in table.rows:
        texts = [printable(str(row[i])) for i in below if row[i]]
        if texts:
            screen.print(Text(f"  {row[0]}: {' '.join(texts)}"), soft_wrap=True)


def _lay(screen: Console, drawn: RenderableType) -> None:
    """Print what has columns; in a pipe without the blanks that would fill them up."""
    if screen.is_terminal:
        screen.print(drawn)
        return
    with screen.capture() as caught:
        screen.print(drawn)
    lines = (line.rstrip() for line in caught.get().splitlines())
    screen.print(Text("\n".join(lines)), soft_wrap=True)


def _fitting(
    screen: Console, columns: Sequence[str], rows: Sequence[tuple[Scalar, ...]]
) -> RichTable:
    """The table as it is; on a narrow screen lists in it have a line per item."""
    wide = _rich_table(columns, rows)
    unbounded = screen.options.update(width=UNFOLDED)
    if Measurement.get(screen, unbounded, wide).maximum <= screen.width:
        return wide
    broken = [
        tuple(v.replace(", ", ",\n") if isinstance(v, str) else v for v in row) for row in rows
    ]
    return _rich_table(columns, broken)


def _print_glossary(screen: Console, table: Table) -> None:
    """A table whose last column explains the row: the explanation stands under it."""
    *columns, _ = table.columns
    rows = [
        tuple(cell(v, column=c) for v, c in zip(row, columns, strict=False)) for row in table.rows
    ]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for cells, row in zip(rows, table.rows, strict=True):
        line = Text(
            "  ".join(f"{text:<{width}}" for text, width in zip(cells, widths, strict=True))
        )
        line.stylize("bold", 0, len(cells[0]))
        line.rstrip()
        screen.print(line, soft_wrap=True)
        meaning = Text(printable(str(row[-1])), style="dim")
        _lay(screen, Padding(meaning, (0, 0, 0, 4), expand=False))


def _rich_table(columns: Sequence[str], rows: Sequence[tuple[Scalar, ...]]) -> RichTable:
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for position, column in enumerate(columns):
        values = [row[position] for row in rows]
        numbers = any(_is_number(value) for value in values)
        drawn.add_column(
            Text(_heading(column)),
            justify="right" if numbers and not any(isinstance(v, str) for v in values) else "left",
            overflow="fold",
            no_wrap=position == 0,
        )
    for row in rows:
        drawn.add_row(*(_styled(v, _unit(c, row)) for v, c in zip(row, columns, strict=True)))
    return drawn


def _unit(column: str, row: tuple[Scalar, ...]) -> str:
    """What decides how a cell is written: its column, or in a list of numbers the number's name."""
    return str(row[0]).rpartition(".")[2] if column == "value" else column


def _styled(value: Scalar, column: str) -> Text:
    style = STATE_STYLES.get(str(value), "") if column == "state" else ""
    return Text(cell(value, column=column), style=style)


def _heading(column: str) -> str:
    if is_bytes(column):
        column = f"{column[: -len('bytes')]}size"
    if is_seconds(column):
        column = column.removesuffix("_seconds")
    return printable(column.replace("_", " "))


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
