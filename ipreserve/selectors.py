"""Calico's own selector language, as a pool's `nodeSelector` is written in it. Pure.

`all()`, `has(rack)`, `rack == 'a'`, `rack != 'a'`, `rack in {'a', 'b'}`, `rack not in {'a'}`, `rack contains 'a'`,
`starts with`, `ends with`; `!`, `&&`, `||` and brackets between them. As in Kubernetes, a label that is not there
matches `!=` and `not in`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

Matches = Callable[[Mapping[str, str]], bool]

ALL = "all()"
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"[^"]*"|'[^']*')|(?P<sign>==|!=|&&|\|\||[!(){},])"""
    r"""|(?P<call>(?:all|global|has)\s*\()|(?P<word>[A-Za-z0-9_./-]+))"""
)
_SETS = ("in", "not in")
_TEXTS: Mapping[str, Callable[[str, str], bool]] = {
    "==": str.__eq__, "contains": str.__contains__, "starts with": str.startswith, "ends with": str.endswith
}  # fmt: skip


@lru_cache(maxsize=1024)
def selector(text: str) -> Matches:
    """Whether labels are selected. Empty text selects everything. Raises ValueError, which quotes the text."""
    if text.strip() in ("", ALL):
        return lambda labels: True
    return _Parser(text).all()


class _Parser:
    """One word at a time: `||` binds weakest, then `&&`, then `!`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._words: list[str] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                raise ValueError(f"{text!r} is not a selector of Calico's: {text[at : at + 20].strip()!r}")
            self._words.append(re.sub(r"\s", "", found[0]) if found["call"] else found[0].strip())
            at = found.end()

    def all(self) -> Matches:
        found = self._any_of()
        if self._words:
            raise self._wrong()
        return found

    def _wrong(self) -> ValueError:
        return ValueError(f"{self._text!r} is not a selector of Calico's: {' '.join(self._words[:2]) or 'its end'!r}")

    def _next(self, *wanted: str) -> str:
        if not self._words or (wanted and self._words[0] not in wanted):
            raise self._wrong()
        return self._words.pop(0)

    def _is(self, word: str) -> bool:
        if self._words[:1] != [word]:
            return False
        self._words.pop(0)
        return True

    def _any_of(self) -> Matches:
        found = [self._all_of()]
        while self._is("||"):
            found.append(self._all_of())
        return lambda labels: any(one(labels) for one in found)

    def _all_of(self) -> Matches:
        found = [self._one()]
        while self._is("&&"):
            found.append(self._one())
        return lambda labels: all(one(labels) for one in found)

    def _one(self) -> Matches:
        if self._is("!"):
            other = self._one()
            return lambda labels: not other(labels)
        if self._is("("):
            inner = self._any_of()
            self._next(")")
            return inner
        if self._is("all(") or self._is("global("):
            self._next(")")
            return lambda labels: True
        if self._is("has("):
            name = self._next()
            self._next(")")
            return lambda labels: name in labels
        return self._compared(self._next())

    def _compared(self, name: str) -> Matches:
        sign = self._next("==", "!=", "in", "not", "contains", "starts", "ends")
        if sign in ("not", "starts", "ends"):
            sign += " " + self._next("in" if sign == "not" else "with")
        if sign in _SETS:
            values = self._values()
            return lambda labels: (labels[name] in values) == (sign == "in") if name in labels else sign == "not in"
        value = self._value()
        if sign == "!=":
            return lambda labels: labels.get(name) != value
        return lambda labels: name in labels and _TEXTS[sign](labels[name], value)

    def _values(self) -> frozenset[str]:
        self._next("{")
        found: set[str] = set()
        while not self._is("}"):
            found.add(self._value())
            if not self._is(","):
                self._next("}")
                break
        return frozenset(found)

    def _value(self) -> str:
        found = self._next()
        if found[0] not in "'\"":
            self._words.insert(0, found)
            raise self._wrong()
        return found[1:-1]
