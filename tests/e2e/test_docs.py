"""The commands of the pages that people follow, run as a reader would run them."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.kubectl import wait_for
from demo.stage import Stage
from tests.apiserver.private import free_port
from tests.pages import SHELL, Block, blocks_of, run

ROOT = Path(__file__).resolve().parents[2]
GETTING_STARTED = tuple(blocks_of((ROOT / "docs" / "getting-started.md").read_text()))
RECIPES = tuple(blocks_of((ROOT / "docs" / "recipes.md").read_text()))
FILES = tuple(blocks_of((ROOT / "docs" / "files.md").read_text()))
# What the other two say they stand on.
_SHOP = tuple(
    block
    for block in GETTING_STARTED
    if not block.test
    and block.kind == "sh"
    and block.heading.startswith(("3. Opt a namespace in", "5. Look at the packets"))
)


@pytest.fixture
def environ(stage: Stage, surroundings: dict[str, str]) -> dict[str, str]:
    """A reader's, with an image of the cluster's own."""
    return {**surroundings, "IMAGE": stage.images.app}


@pytest.fixture
def words(stage: Stage) -> Iterator[dict[str, str]]:
    """A namespace of the test's own in the place of the pages'."""
    name = f"shop-{uuid.uuid4().hex[:6]}"
    # Other tests forward ports on this machine, too.
    yield {"shop": name, "18444": str(free_port())}
    stage.kubectl.delete("namespace", name, "--wait=false")


def test_getting_started(environ: dict[str, str], words: dict[str, str], tmp_path: Path) -> None:
    run([block for block in GETTING_STARTED if not block.test], tmp_path, environ, words)


def _recipes() -> dict[str, list[Block]]:
    found: dict[str, list[Block]] = {}
    for block in RECIPES:
        if not block.test:
            found.setdefault(block.heading, []).append(block)
    return found


@pytest.mark.parametrize("recipe", list(_recipes().values()), ids=list(_recipes()))
def test_recipe(
    recipe: list[Block], environ: dict[str, str], words: dict[str, str], tmp_path: Path
) -> None:
    run([*_SHOP, *recipe], tmp_path, environ, words)


def test_files_by_curl(environ: dict[str, str], words: dict[str, str], tmp_path: Path) -> None:
    """One session in one shell: what its way in sets holds for all that follow."""
    way_in = next(block for block in FILES if block.heading == "The way in")
    lines = way_in.text.splitlines()
    [forward] = [line for line in lines if "port-forward" in line]
    session = "".join(f"{line}\n" for line in lines if line != forward)
    run([*_SHOP, *FILES[: FILES.index(way_in)]], tmp_path, environ, words)
    # Nothing that stays in the background may be left behind by a test.
    command = f"exec {forward.removesuffix('&')}".replace("18444", words["18444"])
    with subprocess.Popen([*SHELL, command], cwd=tmp_path, env=environ) as forwarding:
        try:
            log = tmp_path / "forward.log"
            wait_for(
                "the port-forward", lambda: log.exists() and "Forwarding" in log.read_text(), 60
            )
            rest = FILES[FILES.index(way_in) + 1 :]
            run(rest, tmp_path, environ, words, before=session)
        finally:
            forwarding.terminate()
