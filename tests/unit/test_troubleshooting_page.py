"""docs/troubleshooting.md against the words that the programs say."""

import re
from pathlib import Path

from controller import telling
from nightcap.contract.reports import Reason
from webhook.eligibility import SkipReason

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()


def _section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def _codes(title: str, column: int) -> set[str]:
    rows = [line.split("|") for line in _section(title).splitlines() if line.startswith("| `")]
    return {code for row in rows for code in re.findall(r"`([^`]+)`", row[column])}


def test_every_condition_and_its_reason_is_explained() -> None:
    source = (ROOT / "controller" / "conditions.py").read_text()
    said = re.findall(r'Condition\(\s*"(\w+)",\s*"\w+",\s*"(\w+)"', source)
    said += [("Recording", reason) for reason in re.findall(r'return "(\w+)", ', source)]
    assert len(said) > 20
    rows = [line.split("|") for line in _section("Conditions").splitlines()]
    explained = {
        (kind, reason)
        for row in rows
        if len(row) > 4
        for kind in re.findall(r"`(\w+)`", row[1])
        for reason in re.findall(r"`(\w+)`", row[2])
    }
    assert explained == set(said)


def test_every_reason_not_to_inject_is_explained() -> None:
    assert _codes("Pods without a sidecar", 1) == {str(reason) for reason in SkipReason}


def test_every_reason_of_a_report_is_explained() -> None:
    explained = set(re.findall(r"`([a-z-]+)`", _section("Pods that fail")))
    assert {str(reason) for reason in Reason if reason} <= explained


def test_every_event_is_explained() -> None:
    sources = "".join(
        (ROOT / "controller" / name).read_text()
        for name in ("annotations.py", "canary.py", "guard.py", "misfits.py", "reconcile.py")
    )
    said = set(
        re.findall(r'reason="(\w+)"|_tell\(asking, "(\w+)"|"(SidecarRefused|NotInjected)"', sources)
    )
    said_words = {word for found in said for word in found if word}
    said_words |= set(telling.SAID_OF_RECORDING.values())
    source = (ROOT / "controller" / "telling.py").read_text()
    said_words |= set(re.findall(r'_normal\([\w.]+, "(\w+)"', source))
    said_words |= set(re.findall(r'"(Capture(?:Started|Ended))"', source))
    assert len(said_words) > 12
    assert _codes("Events", 1) == said_words | telling.MEANT_SO | {
        "PodsWithoutSidecar",
        "InjectionOff",
    }


def test_quoted_errors_are_those_that_programs_say() -> None:
    """What people paste into a search has to be what they were shown."""
    sources = "".join(
        re.sub(r'"\s*\n\s*f?"', "", file.read_text())
        for folder in ("nightcap", "webhook", "controller", "retrieval", "manifests")
        for file in sorted((ROOT / folder).rglob("*"))
        if file.suffix in (".py", ".yaml")
    )
    flat = re.sub(r"\s+", " ", sources)
    for words in (
        "annotation nightcap.dev/orders is written by the Nightcap controller alone",
        "container nightcap lost its restartPolicy Always to another admission webhook",
        "there is no capture ",
    ):
        assert words.strip() in PAGE
        assert words in flat
