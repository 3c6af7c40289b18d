"""Words after `--set`: `section.name=value` in TOML's syntax, with bare text and bare lists."""

import re
import tomllib
from collections.abc import Sequence
from typing import Any

from stages.errors import UsageError
from stages.settings.values import MAX_SHOWN, is_deep, is_dotted

MAX_LENGTH = 10_000  # characters of one word
SCALARS = (bool, int, float, str, list)  # dates and tables of TOML are read as text

_KEY = re.compile(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)+", re.ASCII)
_ITEM = re.compile(r"""(?:"[^"]*"|'[^']*'|[^,"'])+""")  # of a flat list, quoted or bare
_SECOND_WORD = re.compile(r"\s[A-Za-z_][\w.-]*=")


def parse_overrides(words: Sequence[str]) -> dict[str, Any]:
    """Dotted key to plain value; of two words with the same key the later one holds.

    Values stay as TOML reads them (text that TOML does not know stays text, also inside lists);
    the word `none` stays text here and becomes None where a setting may be none.

    Raises:
        UsageError: a word that is no `key=value`, or a habit from another tool, with what to
            write instead.
    """
    return dict(_parse_word(word.strip()) for word in words)


def _parse_word(word: str) -> tuple[str, Any]:
    _refuse_habits(word)
    key, equals, text = (part.strip() for part in word.partition("="))
    if not equals:
        raise _refusal(word, "Write --set section.name=value.")
    if not _KEY.fullmatch(key):
        hint = "The seed has an option of its own: --seed N." if key == "seed" else ""
        raise _refusal(word, hint or "The key is written section.name, e.g. memory.lr=1e-3.")
    if not text:
        raise _refusal(word, f"For empty text write {key}='\"\"'; for no value {key}=none.")
    return key, _parse_value(text, word)


def _refuse_habits(word: str) -> None:
    """Answer what other tools taught with what to write here."""
    if len(word) > MAX_LENGTH or not word.isprintable():
        raise _refusal(repr(word[:MAX_SHOWN]), "One line of plain text is expected.")
    if word.startswith("+"):
        raise _refusal(word, "Every key exists already: leave the + out.")
    if word.startswith("~"):
        raise _refusal(word, "A key cannot be removed; set it to none where that is allowed.")
    if "${" in word:
        raise _refusal(word, "Values are not interpolated: write the value itself.")
    if _SECOND_WORD.search(word) and not word.endswith(('"', "'", "]")):
        raise _refusal(word, "One value per option: --set a.b=1 --set c.d=2.")


def _parse_value(text: str, word: str) -> Any:
    """One TOML value; what TOML does not know is bare text or a list of such."""
    if is_dotted(text):
        raise _refusal(word, "Keys do not have so many parts.")
    try:
        values = tomllib.loads(f"value = [{text}]")["value"]
    except (ValueError, RecursionError):  # no TOML, or a number of thousands of digits
        return _parse_bare(text, word)
    if is_deep(values):
        raise _refusal(word, "Lists do not lie so deep in each other.")
    if len(values) != 1 or text.endswith(","):
        raise _sweep(word)
    return values[0] if isinstance(values[0], SCALARS) else text


def _parse_bare(text: str, word: str) -> Any:
    if text.startswith("[") and text.endswith("]") and "[" not in text[1:]:
        return [_parse_value(item, word) for item in _split(text[1:-1], word)]
    if text[0] in "\"'[{":
        raise _unclosed(word)
    if "," in text:
        raise _sweep(word)
    return text


def _split(text: str, word: str) -> list[str]:
    """The items between the commas of a flat list."""
    if _ITEM.sub("", text).strip(", "):  # a quote that has no partner is all that can remain
        raise _unclosed(word)
    return [item.strip() for item in _ITEM.findall(text) if item.strip()]


def _unclosed(word: str) -> UsageError:
    return _refusal(word, "A quote or bracket is not closed, or something follows it.")


def _sweep(word: str) -> UsageError:
    key, _, text = word.partition("=")
    return _refusal(
        word,
        f"For a list write {key}=[{text}]; for one run per value use a shell loop: "
        f"for v in {text.replace(',', ' ')}; do wm run -w runs/$v --set {key}=$v; done",
    )


def _refusal(word: str, fix: str) -> UsageError:
    return UsageError(f"--set {word[:MAX_SHOWN]} is not understood.", fix=fix)
