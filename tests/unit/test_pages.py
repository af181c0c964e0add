import os
import re
from pathlib import Path

import pytest

from tests.pages import Block, blocks_of, is_as_shown, run

ROOT = Path(__file__).resolve().parents[2]

PAGE = """# Title

```sh
touch first
```

<!-- test: no, opens a window -->
```sh
wireshark
```

## Second

```yaml
kind: Pod
```

<!-- test: install -->
```console
$ echo one \\
  two
one two
$ echo three; echo four
...
four
```
"""


def test_blocks_of_commands_are_found_with_who_runs_them() -> None:
    found = [(b.heading, b.kind, b.test, b.line) for b in blocks_of(PAGE)]
    assert found == [
        ("Title", "sh", "", 3),
        ("Title", "sh", "no", 8),
        ("Second", "console", "install", 19),
    ]


def test_console_blocks_are_commands_and_what_they_print() -> None:
    *_, block = blocks_of(PAGE)
    assert list(block.commands()) == [
        ("echo one \\\n  two", "one two"),
        ("echo three; echo four", "...\nfour"),
    ]


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a b", "a    b\n", True),
        ("a b", "a b c", False),
        ("size ... MiB", "size 12 MiB", True),
        ("...\nlast", "one\ntwo\nlast", True),
        ("...\nlast", "last", True),
        ("...\nlast", "one\ntwo", False),
        ("first\n...", "first\n(x|y)", True),
        ("first", "second\nfirst", False),
        ("file.pcap", "fileXpcap", False),
    ],
)
def test_output_is_held_against_the_page(shown: str, printed: str, same: bool) -> None:
    assert is_as_shown(shown, printed) is same


def _run(tmp_path: Path, text: str, kind: str = "sh") -> None:
    run([Block("H", kind, text, "", 1)], tmp_path, {"PATH": os.environ["PATH"]}, {"shop": "x-1"})


def test_a_command_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="ended with 3"):
        _run(tmp_path, "echo fine\n(exit 3)\necho never")
    with pytest.raises(AssertionError, match="ended with 1"):
        _run(tmp_path, "false | cat")


def test_output_that_differs_is_shown(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"(?s)shown:.*other.*said:.*this"):
        _run(tmp_path, "$ echo this\nother", "console")


def test_words_of_the_page_are_replaced_as_whole_words(tmp_path: Path) -> None:
    _run(tmp_path, "$ echo shop shop:web workshop shop.yaml\nx-1 x-1:web workshop shop.yaml",
         "console")  # fmt: skip


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))], ids=str)
def test_links_lead_to_pages_and_headings_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in anchors, f"{page.name} links to {target}; there are {anchors}"
