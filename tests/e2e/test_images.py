"""What is in the images that run, seen from inside."""

from __future__ import annotations

import json

import pytest

from demo.installation import NAMESPACE
from demo.stage import Stage
from tests.e2e.shop import Shop

# Everything on the search path and beside it that a program could start.
_LIST = """
import json, os
folders = {os.path.realpath(f"{root}/{name}")
           for root in ("", "/usr", "/usr/local", "/opt") for name in ("bin", "sbin")}
found = {name for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)}
print(json.dumps(sorted(found)))
"""


def _is_pythons(name: str) -> bool:
    return name.startswith("python")


@pytest.mark.parametrize("container", ["webhook", "controller", "retrieval"])
def test_programs_have_no_shell_and_no_tool_beside_them(stage: Stage, container: str) -> None:
    said = stage.kubectl.run(
        "-n", NAMESPACE, "exec", f"deployment/nightcap-{container}", "--", "python3", "-c", _LIST
    )
    assert any(_is_pythons(name) for name in json.loads(said))
    assert [name for name in json.loads(said) if not _is_pythons(name)] == []


def test_the_sidecar_has_no_shell_and_no_tool_beside_it(shop: Shop) -> None:
    shop.start(shop.pod("plain"))
    said = shop.run("exec", "plain", "-c", "nightcap", "--", "python3", "-c", _LIST)
    assert [name for name in json.loads(said) if not _is_pythons(name)] == []
