from pathlib import Path

import pytest

from tests.cluster.cache import (
    cached_part,
    digest,
    digest_of_files,
    part_folder,
    source_files,
)
from tests.cluster.paths import cache_folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "nightcap"


def test_moving_a_boundary_between_two_texts_changes_the_hash() -> None:
    assert digest(["ab", "c"]) != digest(["a", "bc"])
    assert digest(["ab", "c"]) == digest([b"ab", "c"])


def test_the_hash_follows_names_contents_and_the_executable_bit(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("x = 1\n")
    hashes = [digest_of_files(tmp_path, [file])]
    file.write_text("x = 2\n")
    hashes.append(digest_of_files(tmp_path, [file]))
    file.chmod(0o755)
    hashes.append(digest_of_files(tmp_path, [file]))
    file = file.rename(tmp_path / "b.py")
    hashes.append(digest_of_files(tmp_path, [file]))
    hashes.append(digest_of_files(tmp_path, [file], "-O2"))
    assert len(set(hashes)) == len(hashes)


def test_compiled_files_are_no_sources(tmp_path: Path) -> None:
    for name in ("p/a.py", "p/__pycache__/a.cpython-311.pyc", "p/b.pyc", "q/c.py", "d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = source_files(tmp_path, ["p", "d.txt", "missing"])
    assert [str(file.relative_to(tmp_path)) for file in found] == ["d.txt", "p/a.py"]


def test_a_part_is_built_once() -> None:
    calls = []

    def build(folder: Path) -> None:
        calls.append(folder)
        (folder / "program").write_text("made")

    first = cached_part("thing", "abc", build)
    assert cached_part("thing", "abc", build) == first == part_folder("thing", "abc")
    assert (first / "program").read_text() == "made"
    assert len(calls) == 1


def test_an_interrupted_build_leaves_nothing_that_looks_finished(own_cache: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_part("thing", "abc", build)
    assert not part_folder("thing", "abc").exists()
    assert list((own_cache / "parts").iterdir()) == []


def test_a_relative_cache_folder_is_ignored_as_the_specification_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_folder() == Path("/home/somebody/.cache/nightcap")
