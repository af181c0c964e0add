"""The commands of "Getting started" and of the recipes, run as a reader would run them."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.stage import Stage
from tests.apiserver.private import free_port
from tests.pages import Block, blocks_of, run

ROOT = Path(__file__).resolve().parents[2]
GETTING_STARTED = tuple(blocks_of((ROOT / "docs" / "getting-started.md").read_text()))
RECIPES = tuple(blocks_of((ROOT / "docs" / "recipes.md").read_text()))
# What the recipes say they stand on.
_SHOP = tuple(
    block
    for block in GETTING_STARTED
    if not block.test
    and block.kind == "sh"
    and block.heading.startswith(("3. Opt a namespace in", "5. Look at the packets"))
)


@pytest.fixture
def environ(stage: Stage, tmp_path: Path) -> dict[str, str]:
    """A reader's surroundings: kubectl and its plugin on PATH, the cluster's kubeconfig."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "kubectl").symlink_to(stage.kubectl.binary)
    plugin = programs / "kubectl-nightcap"
    plugin.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m nightcap.cli "$@"\n')
    plugin.chmod(0o755)
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "KUBECONFIG": str(stage.kubectl.kubeconfig),
        "IMAGE": stage.images.app,
    }


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
