"""Small real input and output: orders file, settings, log, interfaces, and what is imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar import interfaces, log
from sidecar.orders_file import OrdersFile
from sidecar.settings import DEFAULT_SPOOL_BYTES, Settings
from tests.netns.built import start_script
from tests.netns.pods import swap

ROOT = Path(__file__).parents[3]


def test_a_swap_is_noticed_once(tmp_path: Path) -> None:
    swap(tmp_path, "one")
    file = OrdersFile(str(tmp_path))
    assert file.read() == "one"
    assert not file.changed()
    swap(tmp_path, "two")
    assert file.changed()
    assert file.read() == "two"
    assert not file.changed()


def test_orders_that_are_not_there_are_not_empty_orders(tmp_path: Path) -> None:
    """Empty orders remove every capture; a folder that is away for a moment must not."""
    assert OrdersFile(str(tmp_path)).read() is None
    assert OrdersFile(str(tmp_path / "nowhere")).read() is None
    swap(tmp_path, "")
    assert OrdersFile(str(tmp_path)).read() == ""


def test_bytes_that_are_no_text_are_read_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "orders").write_bytes(b"\xff{")
    assert OrdersFile(str(tmp_path)).read() == "�{"


def test_settings_have_defaults_and_faults_do_not_stop() -> None:
    settings = Settings.from_environ({"NIGHTCAP_SPOOL_BYTES": "lots"})
    assert settings.spool_bytes == DEFAULT_SPOOL_BYTES
    assert len(settings.faults) == 3
    good = {
        "NIGHTCAP_SPOOL_BYTES": "1000",
        "NIGHTCAP_COLLECTOR_NAME": "g1.collector.nightcap.internal",
        "NIGHTCAP_COLLECTOR_CA": "pem",
    }
    settings = Settings.from_environ(good)
    assert (settings.spool_bytes, settings.faults) == (1000, ())
    assert str(settings.token_file) == "/run/nightcap/token/token"


def test_a_log_line_is_one_json_object(capfd: pytest.CaptureFixture[str]) -> None:
    log.warning("it happened", file=Path("a\nb"), count=3)
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    facts = json.loads(line)
    assert facts["at"].endswith("Z")
    del facts["at"]
    assert facts == {
        "level": "warning",
        "program": "sidecar",
        "event": "it happened",
        "file": "a\nb",
        "count": 3,
    }


def test_default_interfaces_are_those_that_are_up_but_lo() -> None:
    assert interfaces.default({"lo": True, "eth0": True, "tunl0": False}) == ["eth0"]
    assert interfaces.present()["lo"] in (True, False)


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        (
            "sidecar.worker",
            {"ssl", "shutil", "random", "subprocess", "logging", "dataclasses", "inspect"}
            | {"pathlib", "urllib.parse", "ipaddress", "nightcap.pcap.formats"},
        ),
        ("sidecar.shipper", {"random", "subprocess", "logging", "http.client", "dataclasses"}),
    ],
)
def test_what_is_slow_or_large_is_not_imported(module: str, unwanted: set[str]) -> None:
    """Every import of the worker is waited for before the first packet."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import {module}
print(*sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-E", "-c", code], check=True, capture_output=True, text=True
    )
    assert unwanted & set(done.stdout.split()) == set()


def test_the_worker_ends_without_taking_python_down(tmp_path: Path) -> None:
    """Its shipping thread may be loading certificates then: one end in thirty was a crash."""
    swap(tmp_path / "orders", "")
    (tmp_path / "spool").mkdir()
    code = (
        "import atexit, runpy, sys\n"
        "atexit.register(print, 'taken down')\n"
        "runpy.run_path(sys.argv[1], run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, start_script()],
        env={
            "NIGHTCAP_ORDERS_DIR": str(tmp_path / "orders"),
            "NIGHTCAP_SPOOL_DIR": str(tmp_path / "spool"),
        },
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == ""
    assert '"worker ends"' in done.stderr
