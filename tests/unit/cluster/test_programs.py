import pytest

from tests.cluster import programs
from tests.cluster.toolchain import go_line, parse_version

GO_MOD = """module example
go 1.26.0

require (
	k8s.io/kubernetes v1.35.4
	example.com/other v1.0.0 // indirect
)
"""


def test_the_lowest_go_version_is_read_from_a_go_mod() -> None:
    assert go_line(GO_MOD) == (1, 26, 0)
    assert go_line("module old\n") == (1,)


@pytest.mark.parametrize(
    ("text", "enough"),
    [
        ("go version go1.26.8 linux/amd64", True),
        ("go version go1.26.0 linux/amd64", True),
        ("go version go1.19.8 linux/amd64", False),
        ("go version devel", False),
    ],
)
def test_a_toolchain_is_new_enough_or_not(text: str, enough: bool) -> None:
    assert (parse_version(text) >= go_line(GO_MOD)) is enough


def test_the_programs_are_told_their_version() -> None:
    version = programs.required_version(GO_MOD, "k8s.io/kubernetes")
    flags = programs.version_flags(version).split()
    assert "k8s.io/component-base/version.gitVersion=v1.35.4" in flags
    assert "k8s.io/client-go/pkg/version.gitMinor=35" in flags


def test_a_module_that_is_not_required_is_named() -> None:
    with pytest.raises(ValueError, match=r"requires no go\.example"):
        programs.required_version(GO_MOD, "go.example")


def test_every_part_has_a_key_of_its_own() -> None:
    assert len({programs.go_part_key(part) for part in programs.GO_PARTS}) == 3
