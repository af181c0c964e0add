"""A few seconds of the fuzz target; `make fuzz` runs it longer."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has wheels for x86-64 Linux only")
def test_the_webhook_answers_whatever_a_fuzzer_finds(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "tests.fuzz.admission", str(tmp_path), "-max_total_time=3",
            "-timeout=5", "-rss_limit_mb=1024", f"-artifact_prefix={tmp_path}/",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done " in done.stderr
