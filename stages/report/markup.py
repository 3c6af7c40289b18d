"""HTML as a tree of elements: text is text, whatever it says, and every tag is closed."""

import base64
import re
from collections.abc import Iterable, Iterator
from typing import Any
from xml.etree.ElementTree import Element, tostring

from stages.errors import StageError
from stages.events import Scalar
from stages.wording import duration, size

__all__ = ["Element"]

CHART = "chart"  # class of drawings that are told apart

_CONTROL = re.compile(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ID = re.compile(r"(?:(?<=url\(#)|(?<=^#))[^)]+")


def tag(name: str, /, *children: "Element | str | None", **attributes: str | int | None) -> Element:
    """An element; None among children and attributes is left out.

    A trailing `_` of an attribute is dropped and others become `-`: `class_`, `aria_label`.
    """
    made = Element(name)
    for key, value in attributes.items():
        if value is not None:
            made.set(key.rstrip("_").replace("_", "-"), plain(str(value)))
    fill(made, children)
    return made


def fill(element: Element, children: "Iterable[Element | str | None]") -> Element:
    """Add these children at the end of an element."""
    for child in children:
        if child is None:
            continue
        if isinstance(child, Element):
            element.append(child)
        elif len(element):
            element[-1].tail = (element[-1].tail or "") + plain(child)
        else:
            element.text = (element.text or "") + plain(child)
    return element


def html(root: Element) -> bytes:
    """The document, every id inside a chart made unique."""
    charts = [drawing for drawing in root.iter("svg") if drawing.get("class") == CHART]
    for number, drawing in enumerate(charts, start=1):
        _name_apart(drawing, f"d{number}-")
    content: bytes = tostring(root, encoding="utf-8", method="html")
    return b"<!DOCTYPE html>\n" + content + b"\n"


def _name_apart(drawing: Element, prefix: str) -> None:
    """Put a prefix before every id inside a drawing, and before what refers to it."""
    inside = {part.get("id") for part in drawing.iter() if part.get("id")}
    for part in drawing.iter():
        for name, value in part.items():
            if name == "id":
                part.set(name, prefix + value)
            elif "#" in value:
                found = _ID.sub(lambda m: prefix + m[0] if m[0] in inside else m[0], value)
                part.set(name, found)


def data_uri(content: bytes, kind: str) -> str:
    """A file inside the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def picture(content: bytes, alt: str, *, class_: str = "pixels") -> Element:
    """A PNG file."""
    width, height = png_size(content)
    source = data_uri(content, "image/png")
    return tag("img", src=source, alt=alt, width=width, height=height, class_=class_)


def png_size(content: bytes) -> tuple[int, int]:
    """Columns and rows of a PNG file, as its header says; (0, 0) where there is none."""
    if content[:8] != b"\x89PNG\r\n\x1a\n" or len(content) < 24:
        return 0, 0
    return int.from_bytes(content[16:20]), int.from_bytes(content[20:24])


def section(name: str, title: str, *children: "Element | str | None") -> Element:
    """A part of the page that its contents name."""
    return tag("section", tag("h2", title), *children, id=name, aria_label=title)


def figure(*children: "Element | None", title: str, says: "Element | str" = "") -> Element:
    """Something to look at, its title above and what it says below."""
    caption = tag("figcaption", tag("strong", title), tag("p", says) if says else None)
    return tag("figure", caption, *children)


def table(
    columns: Iterable[str], rows: Iterable[Iterable[Scalar]], *, caption: str = ""
) -> Element:
    """A table whose first column names the row; on a phone every row becomes a block."""
    names = list(columns)
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in names)))
    body = tag("tbody")
    for row in rows:
        first, *others = (shown(value) for value in row)
        cells = [
            tag("td", text, data_label=name) for name, text in zip(names[1:], others, strict=True)
        ]
        body.append(tag("tr", tag("th", first, scope="row"), *cells))
    return tag("table", tag("caption", caption) if caption else None, head, body)


def facts(pairs: Iterable[tuple[str, Scalar]]) -> Element:
    """Names and values, side by side."""
    made = tag("dl", class_="facts")
    for name, value in pairs:
        fill(made, [tag("div", tag("dt", name), tag("dd", shown(value)))])
    return made


def shown(value: Scalar) -> str:
    """A value as a person reads it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def trouble(error: StageError, *, about: str = "") -> Element:
    """An error where somebody looks for what it prevented."""
    lines = [tag("p", tag("strong", f"{about} " if about else ""), error.what)]
    lines += [tag("p", text) for text in (error.why,) if text]
    lines += [tag("p", tag("em", error.fix))] if error.fix else []
    return tag("div", *lines, class_="trouble", role="note")


def missing(what: str, command: str) -> Element:
    """What is not there yet, and the command that makes it."""
    return tag("p", f"{what} ", tag("code", command), class_="missing")


def code(lines: Iterable[str]) -> Element:
    """Commands to copy."""
    return tag("pre", tag("code", "\n".join(lines)))


def details(summary: str, *children: "Element | str | None") -> Element:
    """What is folded away at first."""
    return tag("details", tag("summary", summary), *children)


def without(items: "Iterable[Element | None]") -> Iterator[Element]:
    """Those that are there."""
    return (item for item in items if item is not None)


def plain(text: str) -> str:
    """Text without characters that no page may hold."""
    return _CONTROL.sub("\ufffd", text)


def seconds(value: Any) -> str | None:
    """A duration as a person reads it; None where there is no number."""
    return duration(value) if type(value) in (int, float) and value >= 0 else None


def num_bytes(value: float) -> str:
    """A size as a person reads it."""
    return size(value)
