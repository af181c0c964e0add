"""The selector language of projectcalico.org: `app == "logging" && !has(canary)`.

    or    := and ("||" and)*
    and   := term ("&&" term)*
    term  := "!"* ( "all()" | "has(" label ")" | "(" or ")"
                  | label ("==" | "!=") text | label ("in" | "not in") set
                  | label ("contains" | "starts with" | "ends with") text )
    set   := "{" [text ("," text)* [","]] "}"
    text  := '"' anything but '"' '"' | "'" anything but "'" "'"
    label := [A-Za-z0-9_./-]{1,512}

An empty selector selects everything. `!=` and `not in` also match where the label is
absent; every other operator needs it. `global()` is refused: it means things that have
no namespace, and a pod always has one.

Source: docs/calico.md, "Selectors".
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from nightcap.contract.selectors import BadSelector

MAX_CHARACTERS: Final = 4096
MAX_DEPTH: Final = 64
"""Parentheses within one another: a selector is parsed and matched by recursion."""
_SHOWN: Final = 60

Matcher = Callable[[Mapping[str, str]], bool]
"""Whether labels satisfy a selector."""

_SPACE: Final = re.compile(r"[ \t]*")
_EVERYTHING: Final = re.compile(r"all\([ \t]*\)")
_GLOBAL: Final = re.compile(r"global\([ \t]*\)")
_HAS: Final = re.compile(r"has\([ \t]*")
_LABEL: Final = re.compile(r"[A-Za-z0-9_./-]+")
_TEXT: Final = re.compile(r"\"([^\"]*)\"|'([^']*)'")
_OPERATOR: Final = re.compile(
    r"==|!=|in\b|not[ \t]*in\b|contains\b|starts[ \t]*with\b|ends[ \t]*with\b"
)
_MAX_LABEL: Final = 512


@lru_cache(maxsize=4096)
def compile_selector(text: str) -> Matcher:
    """Turn a selector into a function of labels.

    Raises:
        BadSelector: names what was expected, with the selector and a caret under the place.
    """
    if len(text) > MAX_CHARACTERS:
        raise BadSelector(
            f"selector has {len(text)} characters; at most {MAX_CHARACTERS} are allowed"
        )
    return _Parser(text).parse()


@lru_cache(maxsize=4096)
def matcher_of(text: str) -> Matcher:
    """As `compile_selector`; what cannot be understood selects nothing, the safe reading."""
    try:
        return compile_selector(text)
    except BadSelector:
        return _nothing


def _everything(labels: Mapping[str, str]) -> bool:
    return True


def _nothing(labels: Mapping[str, str]) -> bool:
    return False


class _Parser:
    """Reads one selector from left to right; one method for each rule of the grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._skip_space()

    def parse(self) -> Matcher:
        if self._at == len(self._text):
            return _everything
        matcher = self._or()
        if self._at < len(self._text):
            raise self._expected('"&&", "||" or the end')
        return matcher

    def _or(self) -> Matcher:
        parts = [self._and()]
        while self._take("||"):
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else _any_of(tuple(parts))

    def _and(self) -> Matcher:
        parts = [self._term()]
        while self._take("&&"):
            parts.append(self._term())
        return parts[0] if len(parts) == 1 else _all_of(tuple(parts))

    def _term(self) -> Matcher:
        negated = False
        while self._take("!"):
            negated = not negated
        matcher = self._operation()
        return _not(matcher) if negated else matcher

    def _operation(self) -> Matcher:
        if self._take("("):
            return self._group()
        if self._match(_EVERYTHING):
            return _everything
        place = self._at
        if self._match(_GLOBAL):
            raise self._fault(
                "global() means things without a namespace, and every pod has one; "
                "all() selects every pod of the capture's namespace",
                place,
            )
        if self._match(_HAS):
            label = self._label()
            if not self._take(")"):
                raise self._expected('")"')
            return _has(label)
        return self._comparison()

    def _group(self) -> Matcher:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._fault(f"more than {MAX_DEPTH} parentheses within one another", self._at - 1)
        matcher = self._or()
        if not self._take(")"):
            raise self._expected('"&&", "||" or ")"')
        self._depth -= 1
        return matcher

    def _comparison(self) -> Matcher:
        label = self._label()
        found = self._match(_OPERATOR)
        if found is None:
            raise self._expected(
                '"==", "!=", "in", "not in", "contains", "starts with" or "ends with"'
            )
        operator = re.sub(r"[ \t]", "", found[0])
        if operator in ("in", "notin"):
            values = self._set()
            return _in(label, values) if operator == "in" else _not(_in(label, values))
        value = self._value()
        match operator:
            case "==":
                return _in(label, frozenset({value}))
            case "!=":
                return _not(_in(label, frozenset({value})))
            case "contains":
                return _contains(label, value)
            case "startswith":
                return _starts_with(label, value)
            case _:
                return _ends_with(label, value)

    def _label(self) -> str:
        place = self._at
        found = self._match(_LABEL)
        if found is None:
            raise self._expected("the name of a label, has(label) or all()")
        if len(found[0]) > _MAX_LABEL:
            raise self._fault(f"the name of a label has at most {_MAX_LABEL} characters", place)
        return found[0]

    def _value(self) -> str:
        if self._text[self._at : self._at + 1] in ('"', "'") and not _TEXT.match(
            self._text, self._at
        ):
            raise self._fault("this quotation mark is never closed", self._at)
        found = self._match(_TEXT)
        if found is None:
            raise self._expected('a value in quotation marks, such as "nginx"')
        return found[1] if found[1] is not None else found[2]

    def _set(self) -> frozenset[str]:
        if not self._take("{"):
            raise self._expected('a set such as {"a", "b"}')
        values: set[str] = set()
        while not self._take("}"):
            values.add(self._value())
            if not self._take(","):
                if not self._take("}"):
                    raise self._expected('"," or "}"')
                break
        return frozenset(values)

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
            self._skip_space()
        return found

    def _take(self, token: str) -> bool:
        if not self._text.startswith(token, self._at):
            return False
        self._at += len(token)
        self._skip_space()
        return True

    def _skip_space(self) -> None:
        found = _SPACE.match(self._text, self._at)
        self._at = found.end() if found is not None else self._at

    def _expected(self, what: str) -> BadSelector:
        return self._fault(f"expected {what}", self._at)

    def _fault(self, sentence: str, place: int) -> BadSelector:
        begin = max(0, place - _SHOWN // 2)
        shown = self._text[begin : begin + _SHOWN].replace("\t", " ")
        # What a terminal would obey must not come back to one.
        shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown)
        start = "..." if begin else ""
        end = "..." if begin + _SHOWN < len(self._text) else ""
        caret = " " * (len(start) + place - begin) + "^"
        return BadSelector(
            f"selector: {sentence} at character {place + 1}:\n  {start}{shown}{end}\n  {caret}"
        )


def _any_of(parts: tuple[Matcher, ...]) -> Matcher:
    return lambda labels: any(part(labels) for part in parts)


def _all_of(parts: tuple[Matcher, ...]) -> Matcher:
    return lambda labels: all(part(labels) for part in parts)


def _not(part: Matcher) -> Matcher:
    return lambda labels: not part(labels)


def _has(label: str) -> Matcher:
    return lambda labels: label in labels


def _in(label: str, values: frozenset[str]) -> Matcher:
    return lambda labels: labels.get(label) in values


def _contains(label: str, part: str) -> Matcher:
    return lambda labels: label in labels and part in labels[label]


def _starts_with(label: str, start: str) -> Matcher:
    return lambda labels: label in labels and labels[label].startswith(start)


def _ends_with(label: str, end: str) -> Matcher:
    return lambda labels: label in labels and labels[label].endswith(end)
