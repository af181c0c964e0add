"""A few seconds of each fuzz target; `make fuzz` runs them longer."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has wheels for x86-64 Linux only")
@pytest.mark.parametrize(
    ("target", "seconds"),
    [
        pytest.param("formats", 5, id="readers of capture files survive"),
        pytest.param("admission", 3, id="the webhook answers"),
    ],
)
def test_whatever_a_fuzzer_finds(target: str, seconds: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", f"tests.fuzz.{target}", str(tmp_path),
            f"-max_total_time={seconds}", "-timeout=5", "-rss_limit_mb=1024",
            f"-artifact_prefix={tmp_path}/",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done " in done.stderr
