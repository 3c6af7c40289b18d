"""Reads a report as a browser would, with html.parser, and says what is wrong with it."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr", "source"}


@dataclass
class Node:
    """An element: its tag, attributes, and all text below it."""

    tag: str
    attributes: dict[str, str | None]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """The elements of a page in order; `wrong` says what breaks a rule of HTML."""

    nodes: list[Node] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    _open: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        if len(set(names)) != len(names):
            self.wrong.append(f"<{tag}> names an attribute twice")
        node = Node(tag, dict(attrs))
        self.nodes.append(node)
        if tag not in VOID:
            self._open.append(node)

    def handle_endtag(self, tag):
        if not self._open or self._open[-1].tag != tag:
            self.wrong.append(f"</{tag}> closes {self._open[-1].tag if self._open else 'nothing'}")
            return
        self._open.pop()

    def handle_data(self, data):
        for node in self._open:
            node.text += data

    def all(self, tag: str) -> list[Node]:
        return [node for node in self.nodes if node.tag == tag]

    def section(self, name: str) -> Node:
        (found,) = [node for node in self.all("section") if node.attributes.get("id") == name]
        return found

    def rows(self) -> list[list[str]]:
        """Every row of every table."""
        found: list[list[str]] = []
        for node in self.nodes:
            if node.tag == "tr":
                found.append([])
            elif node.tag in ("td", "th"):
                found[-1].append(node.text)
        return found


def read(content: bytes) -> Page:
    page = Page()
    page.feed(content.decode())
    page.close()
    page.wrong += [f"<{node.tag}> is never closed" for node in page._open]
    return page


def faults(page: Page) -> list[str]:
    """What is wrong with a page that must stand alone and be readable by everybody."""
    wrong = list(page.wrong)
    ids = [node.attributes["id"] for node in page.nodes if "id" in node.attributes]
    wrong += [f"the id {name} is there twice" for name in set(ids) if ids.count(name) > 1]
    for node in page.nodes:
        for name, value in node.attributes.items():
            text = value or ""
            if name in ("src", "href", "poster", "data", "action") and not text.startswith(
                ("data:", "#")
            ):
                wrong.append(f"<{node.tag} {name}> loads {text[:60]}")
            if text.startswith("#") and text[1:] not in ids:
                wrong.append(f"<{node.tag} {name}> refers to {text}, which is not there")
            if "url(#" in text and text.split("url(#")[1].split(")")[0] not in ids:
                wrong.append(f"<{node.tag} {name}> refers to {text}, which is not there")
            if name.startswith("on"):
                wrong.append(f"<{node.tag}> runs {text}")
        if node.tag in ("script", "iframe", "object", "link", "base", "form"):
            wrong.append(f"there is a <{node.tag}>")
        if node.tag == "img" and not node.attributes.get("alt"):
            wrong.append("a picture without words")
        hidden = node.attributes.get("aria-hidden") == "true"
        if node.tag == "svg" and not hidden and not node.attributes.get("aria-label"):
            wrong.append("a drawing without words")
        if node.tag == "video" and not node.attributes.get("aria-label"):
            wrong.append("a film without words")
        if node.tag == "style" and ("http" in node.text or "@import" in node.text):
            wrong.append("a style that loads")
    return wrong
