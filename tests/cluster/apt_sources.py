"""Reads the machine's own apt sources, so that no mirror has to be written down.

Knows both forms of sources.list(5): one line per source, and deb822 stanzas.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SOURCES_FOLDER = Path("/etc/apt")


@dataclass(frozen=True, slots=True)
class AptSource:
    """One place to fetch binary packages from."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""

    @property
    def is_of_the_distribution(self) -> bool:
        """Whether the distribution's own keyring vouches for it; other people's names may equal.

        A third party's source may well carry the suite and component of the release.
        """
        return not self.signed_by or "archive-keyring" in self.signed_by


def parse_one_line(text: str) -> list[AptSource]:
    """Read the `deb [options] uri suite component...` form; other lines are not ours."""
    sources = []
    for line in text.splitlines():
        words = re.sub(r"\[[^\]]*\]", " ", line.partition("#")[0]).split()
        if len(words) >= 3 and words[0] == "deb":
            signed_by = re.search(r"signed-by=([^\s\]]+)", line)
            key = signed_by[1] if signed_by else ""
            sources.append(AptSource(words[1], words[2], tuple(words[3:]), key))
    return sources


def parse_deb822(text: str) -> list[AptSource]:
    """Read the stanza form; a stanza may name several types, URIs and suites."""
    sources = []
    for stanza in re.split(r"\n\s*\n", text):
        fields = _fields(stanza)
        if "deb" not in fields.get("types", []) or fields.get("enabled") == ["no"]:
            continue
        sources += [
            AptSource(
                uri,
                suite,
                tuple(fields.get("components", [])),
                # An embedded key is many words and no keyring of the distribution's.
                " ".join(fields.get("signed-by", [])),
            )
            for uri in fields.get("uris", [])
            for suite in fields.get("suites", [])
        ]
    return sources


def machine_sources(folder: Path = SOURCES_FOLDER) -> list[AptSource]:
    """All sources that apt itself would use, in its order."""
    one_line = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*.list"))]
    stanzas = sorted((folder / "sources.list.d").glob("*.sources"))
    return [
        *(source for file in one_line for source in parse_one_line(_text(file))),
        *(source for file in stanzas for source in parse_deb822(_text(file))),
    ]


def release_sources(sources: list[AptSource], codename: str) -> list[AptSource]:
    """The distribution's sources of a release: itself, its updates and its security fixes."""
    suites = (codename, f"{codename}-updates", f"{codename}-security")
    return [
        source
        for source in sources
        if source.suite in suites and "main" in source.components and source.is_of_the_distribution
    ]


def base_source(sources: list[AptSource], codename: str) -> AptSource | None:
    """The source of the release itself, which debootstrap starts from."""
    return next((s for s in release_sources(sources, codename) if s.suite == codename), None)


def codename(os_release: str) -> str:
    """The release's code name, from the text of os-release(5)."""
    match = re.search(r'^VERSION_CODENAME="?([a-z]+)"?$', os_release, re.MULTILINE)
    return match[1] if match else ""


def _fields(stanza: str) -> dict[str, list[str]]:
    """Field names in lower case to their words; continuation lines begin with a space."""
    fields: dict[str, list[str]] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace():
            fields.setdefault(name, []).extend(line.split())
            continue
        name, _, value = line.partition(":")
        name = name.strip().lower()
        fields[name] = value.split()
    return fields


def _text(file: Path) -> str:
    return file.read_text() if file.is_file() else ""
