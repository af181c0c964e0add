from pathlib import Path

import pytest

from tests.cluster.apt_sources import (
    AptSource,
    base_source,
    codename,
    machine_sources,
    parse_deb822,
    parse_one_line,
)
from tests.cluster.base_image import included

DEB822 = """\
Types: deb deb-src
# A remark between fields.
URIs: http://mirror.example/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/security
Suites: trixie-security
Components: main contrib
 non-free

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: trixie
Components: main

Types: deb-src
URIs: http://source.example/debian
Suites: trixie
Components: main
"""


def test_every_uri_and_suite_of_a_stanza_is_a_source() -> None:
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    assert parse_deb822(DEB822) == [
        AptSource("http://mirror.example/debian", "trixie", ("main",), keyring),
        AptSource("http://mirror.example/debian", "trixie-updates", ("main",), keyring),
        AptSource(
            "http://mirror.example/security", "trixie-security", ("main", "contrib", "non-free")
        ),
    ]


def test_the_one_line_form_is_read_with_options_and_remarks() -> None:
    text = """
    # deb http://off.example/debian bookworm main
    deb http://mirror.example/debian bookworm main contrib  # nearby
    deb [arch=amd64 signed-by=/usr/share/keyrings/other.gpg] https://other.example bookworm main
    deb-src http://mirror.example/debian bookworm main
    deb broken
    """
    assert parse_one_line(text) == [
        AptSource("http://mirror.example/debian", "bookworm", ("main", "contrib")),
        AptSource("https://other.example", "bookworm", ("main",), "/usr/share/keyrings/other.gpg"),
    ]


def test_the_base_comes_from_the_release_and_never_from_a_third_party() -> None:
    third_party = AptSource("https://other.example", "bookworm", ("main",), "/usr/other.gpg")
    updates = AptSource("http://mirror.example/debian", "bookworm-updates", ("main",))
    release = AptSource("http://mirror.example/debian", "bookworm", ("main",))
    assert base_source([third_party, updates, release], "bookworm") == release
    assert base_source([third_party, updates], "bookworm") is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ID=debian\nVERSION_CODENAME=bookworm\n", "bookworm"),
        ('VERSION_CODENAME="trixie"', "trixie"),
        ("ID=debian\n", ""),
    ],
    ids=["plain", "quoted", "testing has none"],
)
def test_the_code_name_is_read_from_os_release(text: str, name: str) -> None:
    assert codename(text) == name


def test_both_forms_are_read_from_apts_folder(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb http://a.example/debian sid main\n")
    (tmp_path / "sources.list.d" / "b.sources").write_text(
        "Types: deb\nURIs: http://b.example/debian\nSuites: sid\nComponents: main\n"
    )
    (tmp_path / "sources.list.d" / "c.list.disabled").write_text("deb http://c.example sid main\n")
    assert [source.uri for source in machine_sources(tmp_path)] == [
        "http://a.example/debian",
        "http://b.example/debian",
    ]


def test_the_packets_library_is_found_under_its_name_in_each_release() -> None:
    assert "libpcap0.8" in included("bookworm")
    assert "libpcap0.8t64" in included("trixie")
