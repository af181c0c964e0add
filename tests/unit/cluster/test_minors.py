import re

import pytest

from nightcap.cli.checks import LEAST_MINOR
from tests.apiserver import minors
from tests.cluster import programs


def test_the_oldest_minor_is_the_lowest_that_doctor_accepts() -> None:
    part = minors.wanted({minors.VARIABLE: "oldest"})
    version = programs.required_version(part.go_mod.read_text(), "k8s.io/kubernetes")
    assert version.startswith(f"v1.{LEAST_MINOR}.")


def test_a_minor_that_there_is_not_is_refused() -> None:
    assert minors.wanted({}) is programs.KUBERNETES
    with pytest.raises(ValueError, match="'newest': leave it out, or say oldest"):
        minors.wanted({minors.VARIABLE: "newest"})


@pytest.mark.parametrize("part", [programs.KUBERNETES, programs.KUBERNETES_OLDEST])
def test_every_part_of_kubernetes_is_of_one_version(part: programs.GoPart) -> None:
    text = part.go_mod.read_text()
    version = programs.required_version(text, "k8s.io/kubernetes")
    replaced = set(re.findall(r"^\tk8s\.io/\S+ => k8s\.io/\S+ v0\.(\S+)$", text, re.MULTILINE))
    assert replaced == {version.removeprefix("v1.")}
    assert f"gitVersion={version}" in programs.build_flags(part)[-1]
