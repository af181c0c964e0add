import pytest

from tests.cluster.commands import run, with_system_path
from tests.cluster.errors import CommandFailed
from tests.cluster.progress import Progress


def test_a_part_says_which_of_how_many_it_is_and_how_it_ended() -> None:
    lines: list[str] = []
    progress = Progress("build", 2, lines.append)
    with progress.part("etcd"):
        pass
    with pytest.raises(ValueError, match="broken"), progress.part("kubernetes"):
        raise ValueError("broken")
    progress.finish("all built")
    assert lines[0] == "[build 1/2] etcd ..."
    assert lines[1].startswith("[build 1/2] etcd: done in ")
    assert lines[3].startswith("[build 2/2] kubernetes: failed after ")
    assert lines[4].startswith("[build] all built (")


def test_a_failed_command_shows_its_words_code_and_output() -> None:
    with pytest.raises(CommandFailed) as failure:
        run(["sh", "-c", "echo out; echo why >&2; exit 3"])
    assert failure.value.code == 3
    assert str(failure.value).endswith("ended with code 3:\nout\nwhy")


def test_a_command_reads_what_it_is_given_and_else_nothing() -> None:
    assert run(["cat"], stdin="text") == "text"
    assert run(["cat"]) == ""


@pytest.mark.parametrize(
    ("path", "start"), [({"PATH": "/own/bin"}, "/own/bin:/usr/local/sbin"), ({}, "/usr/local/sbin")]
)
def test_roots_programs_are_found_whoever_calls(path: dict[str, str], start: str) -> None:
    assert with_system_path(path)["PATH"].startswith(start)
