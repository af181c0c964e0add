"""Calico's selector language: its documented sentences, and random ones against an oracle."""

import random
from typing import Any

import pytest

from nightcap.contract.calico_selector import (
    MAX_CHARACTERS,
    MAX_DEPTH,
    compile_selector,
    matcher_of,
)
from nightcap.contract.selectors import BadSelector

LABELS = {"app": "logging", "tier": "back-end", "k8s-app": "nginx", "empty": ""}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        # As printed in the walk-through.
        ('k8s-app  ==  "nginx"', True),
        ("all()", True),
        ('app  ==  "logging"', True),
        ("", True),
        ("  \t ", True),
        ("all( )", True),
        ("app == 'logging'", True),
        ("app=='logging'", True),
        ("app == 'web'", False),
        ("app != 'web'", True),
        ("app!='logging'", False),
        ("absent == 'x'", False),
        ("absent != 'x'", True),
        ("has(app)", True),
        ("has( app )", True),
        ("has(absent)", False),
        ("!has(absent)", True),
        ("! ! has(app)", True),
        ("!!!has(app)", False),
        ("app in {'logging', 'web'}", True),
        ("app in{'web','logging',}", True),
        ("app in {}", False),
        ("app not in {}", True),
        ("absent in {'x'}", False),
        ("absent not in {'x'}", True),
        ("app notin {'logging'}", False),
        ("app not  in {'web'}", True),
        ("app contains 'ogg'", True),
        ("app contains''", True),
        ("absent contains ''", False),
        ("app starts with 'log'", True),
        ("app startswith 'ging'", False),
        ("absent starts with ''", False),
        ("app ends with 'ging'", True),
        ("app endswith 'log'", False),
        ("empty == ''", True),
        ("absent == ''", False),
        # A negation is of the one operation after it.
        ("!app == 'web' && tier == 'back-end'", True),
        ("!app == 'logging' && tier == 'front'", False),
        ("!(app == 'logging' && tier == 'front')", True),
        # && binds before ||.
        ("has(app) || has(absent) && has(absent)", True),
        ("(has(app) || has(absent)) && has(absent)", False),
        ("has(absent) && has(absent) || has(app)", True),
        # Labels that look like words of the language.
        ("all == 'x'", False),
        ("has != 'x'", True),
        ("in in {'x'}", False),
        ("app.kubernetes.io/name != 'x'", True),
        ("""app == "it's" """, False),
        ("((((app == 'logging'))))", True),
    ],
)
def test_sentence_selects_as_documented(text: str, selected: bool) -> None:
    assert compile_selector(text)(LABELS) is selected


@pytest.mark.parametrize(
    "text",
    [
        "b == b", "b", "'x' == b", "a b", "!", 'foo == "x" &', 'foo in ""', "()", "%",
        "has(foo) &&", "has(foo) ||", "&& has(foo)", "has(foo", "(has(foo)", "has(foo))",
        "has()", "foo == \"x", "foo == 'x", "foo = 'x'", "foo in {'a' 'b'}", "foo in {'a'",
        "foo in {,}", "foo containsx 'a'", "foo inx {'a'}", "foo starts 'a'", "all()()",
        "all ()", "foo == 'x'\nhas(b)", "foo == \"a\\\"b\"", "föö == 'x'", "global()",
        "has(foo) | has(b)", "a == 'b' c", "not has(a)", "x" * 513 + " == 'a'",
    ],
)  # fmt: skip
def test_what_is_no_selector_is_refused_and_selects_nothing(text: str) -> None:
    with pytest.raises(BadSelector):
        compile_selector(text)
    assert matcher_of(text)({}) is False
    assert matcher_of(text)(LABELS) is False


def test_fault_shows_the_selector_with_a_caret_under_the_place() -> None:
    with pytest.raises(BadSelector) as refused:
        compile_selector('app = "web"')
    sentence, text, caret = str(refused.value).split("\n")
    assert sentence.endswith("at character 5:")
    assert "in" in sentence
    assert text[caret.index("^")] == "="


def test_fault_in_a_long_selector_shows_its_surroundings_without_control_characters() -> None:
    long = "has(a) && " * 50 + "\x1b[2J"
    with pytest.raises(BadSelector) as refused:
        compile_selector(long)
    _, text, caret = str(refused.value).split("\n")
    assert len(text) < 100
    assert "\x1b" not in str(refused.value)
    assert text[caret.index("^")] == "\N{REPLACEMENT CHARACTER}"


def test_length_and_depth_are_bounded() -> None:
    deep = "(" * MAX_DEPTH + "all()" + ")" * MAX_DEPTH
    assert compile_selector(deep)({})
    # One after the other they are not within one another.
    assert compile_selector(" && ".join(["(all())"] * (MAX_DEPTH + 1)))({})
    for text in (f"({deep})", "a" * (MAX_CHARACTERS + 1), "(" * MAX_CHARACTERS):
        with pytest.raises(BadSelector):
            compile_selector(text)
    assert compile_selector("!" * (MAX_CHARACTERS - 5) + "all()")({}) is (MAX_CHARACTERS % 2 == 1)


# Random sentences: made as trees, printed with random spaces, quotes and needless
# parentheses, and judged by another reading of the same tree.

NAMES = ("a", "b", "in", "all", "k8s.io/x")
VALUES = ("", "x", "xy", "y", "it's", 'say "x"')
Tree = tuple[Any, ...]


def a_tree(source: random.Random, depth: int) -> Tree:
    kind = source.choice(("or", "and", "not") if depth else ("all", "has", "text", "set"))
    match kind:
        case "or" | "and":
            parts = [a_tree(source, source.randrange(depth)) for _ in range(source.randint(2, 3))]
            return kind, *parts
        case "not":
            return "not", a_tree(source, source.randrange(depth))
        case "all":
            return ("all",)
        case "has":
            return "has", source.choice(NAMES)
        case "text":
            operator = source.choice(("==", "!=", "contains", "starts with", "ends with"))
            return operator, source.choice(NAMES), source.choice(VALUES)
        case _:
            values = source.choices(VALUES, k=source.randint(0, 3))
            return source.choice(("in", "not in")), source.choice(NAMES), values


def printed(tree: Tree, source: random.Random) -> str:
    def space() -> str:
        return source.choice(("", " ", "\t ", "  "))

    def quoted(value: str) -> str:
        quotes = [quote for quote in "\"'" if quote not in value]
        quote = source.choice(quotes)
        return f"{quote}{value}{quote}"

    def inner(part: Tree, inside: str) -> str:
        text = printed(part, source)
        loose = {"or": 1, "and": 2}
        must = loose.get(part[0], 3) <= loose.get(inside, 3) and part[0] in loose
        return f"({space()}{text}{space()})" if must or not source.randrange(4) else text

    match tree:
        case ("or" | "and" as kind, *parts):
            sign = "||" if kind == "or" else "&&"
            return f"{space()}{sign}{space()}".join(inner(part, kind) for part in parts)
        case ("not", part):
            return f"!{space()}{inner(part, 'not')}"
        case ("all",):
            return f"all({space()})"
        case ("has", label):
            return f"has({space()}{label}{space()})"
        case ("in" | "not in" as operator, label, values):
            word = operator if source.randrange(2) else operator.replace(" ", "")
            comma = source.choice(("", ",")) if values else ""
            body = f"{space()},{space()}".join(quoted(value) for value in values)
            return f"{label} {word}{space()}{{{space()}{body}{space()}{comma}{space()}}}"
        case ("==" | "!=" as operator, label, value):
            return f"{label}{space()}{operator}{space()}{quoted(value)}"
        case (operator, label, value):
            word = operator if source.randrange(2) else operator.replace(" ", "")
            return f"{label} {word}{space()}{quoted(value)}"
    raise AssertionError(tree)


def means(tree: Tree, labels: dict[str, str]) -> bool:
    match tree:
        case ("or", *parts):
            return max(means(part, labels) for part in parts)
        case ("and", *parts):
            return min(means(part, labels) for part in parts)
        case ("not", part):
            return not means(part, labels)
        case ("all",):
            return True
        case ("has", label):
            return labels.get(label) is not None
        case ("!=", label, value):
            return not means(("==", label, value), labels)
        case ("not in", label, values):
            return not means(("in", label, values), labels)
        case ("in", label, values):
            return max((means(("==", label, value), labels) for value in values), default=False)
        case (operator, label, value):
            if label not in labels:
                return False
            have = labels[label]
            return {
                "==": have == value,
                "contains": have.find(value) >= 0,
                "starts with": have[: len(value)] == value,
                "ends with": have[len(have) - len(value) :] == value if value else True,
            }[operator]
    raise AssertionError(tree)


def test_random_sentences_mean_what_their_trees_mean() -> None:
    source = random.Random(20261122)  # noqa: S311 - the same each time
    outcomes = {True: 0, False: 0}
    for _ in range(3000):
        tree = a_tree(source, source.randint(0, 4))
        text = printed(tree, source)
        matcher = compile_selector(text)
        for _ in range(5):
            names = source.sample(NAMES, source.randint(0, len(NAMES)))
            labels = {name: source.choice(VALUES) for name in names}
            expected = means(tree, labels)
            outcomes[expected] += 1
            assert matcher(labels) is expected, (text, labels)
    assert min(outcomes.values()) > 3000  # else it would show little


def test_no_text_does_anything_but_compile_or_be_refused() -> None:
    source = random.Random(6)  # noqa: S311 - the same each time
    pieces = ["a", " ", "==", "!", "(", ")", "{", "}", '"', "'", "&&", "||", "in", "not", "has(",
              "all()", ",", "\n", "\0", "é", "&", "starts", "with"]  # fmt: skip
    for _ in range(5000):
        text = "".join(source.choices(pieces, k=source.randint(1, 12)))
        assert matcher_of(text)({"a": "x"}) in (True, False)
