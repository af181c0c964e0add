"""What people run in a pod with their own rights, built as the image has it."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "sidecar" / "errand.c"


@pytest.fixture(scope="module", params=["as in the image", "sanitized"])
def errand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    binary = tmp_path_factory.mktemp("errand") / "errand"
    build = ["-Os", "-static", "-s"]
    if request.param == "sanitized":
        build = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    strict = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *build, *strict, "-o", binary, SOURCE], check=True)
    return binary


@pytest.mark.parametrize("task", ["stream", "export"])
def test_tasks_become_python_with_their_argument(errand: Path, task: str, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\nexit 7\n')
    python.chmod(0o755)
    done = subprocess.run(
        [errand, task, "{ }"],
        env={"NIGHTCAP_WORKER_PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7
    assert done.stdout == f"-I -S -E -B /nightcap/app/sidecar/start.py {task} {{ }}\n"


def test_python_that_is_not_there_is_said(errand: Path) -> None:
    done = subprocess.run(
        [errand, "export", "x"],
        env={"NIGHTCAP_WORKER_PYTHON": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (127, "errand: Python cannot be started\n")


@pytest.mark.parametrize("arguments", [[], ["stream"], ["nonsense", "x"]])
def test_what_is_unknown_gets_the_usage(errand: Path, arguments: list[str]) -> None:
    done = subprocess.run([errand, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "linger SECONDS" in done.stderr


def test_lingering_ends_by_time_and_by_signal(errand: Path) -> None:
    assert subprocess.run([errand, "linger", "1"], check=False, timeout=10).returncode == 0
    with subprocess.Popen([errand, "linger", "600"]) as process:
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
