"""The dormant program, built and run as the image has it, and again under sanitizers."""

import ctypes
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nightcap.contract import paths
from tests.cluster import packages
from tests.netns.pods import swap, wait_for

SOURCE = Path(__file__).parents[3] / "sidecar" / "dormant.c"
STRICT = ["-Wall", "-Wextra", "-Werror"]
BUILDS = {
    "as-in-the-image": ["-Os", "-static", "-s"],
    "arm64": ["-Os", "-static", "-s"],
    "sanitized": ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
}


CROSS = {
    "gcc-aarch64-linux-gnu": "aarch64-linux-gnu-gcc",
    "libc6-dev-arm64-cross": "/usr/aarch64-linux-gnu/include/stdio.h",
    "qemu-user-static": "qemu-aarch64-static",
}
EM_AARCH64 = 183


@pytest.fixture(
    scope="session",
    params=[pytest.param(b, marks=[pytest.mark.long] if b == "arm64" else []) for b in BUILDS],
)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    binary = tmp_path_factory.mktemp("dormant") / "dormant"
    for_arm = request.param == "arm64"
    if for_arm and (missing := packages.missing_packages(needed=CROSS)):
        packages.install(missing)
    compiler = CROSS["gcc-aarch64-linux-gnu"] if for_arm else "gcc"
    subprocess.run(
        [compiler, *BUILDS[request.param], *STRICT, "-DSLOW_POLL_MS=300", "-o", binary, SOURCE],
        check=True,
    )
    if not for_arm:
        return binary
    assert int.from_bytes(binary.read_bytes()[18:20], "little") == EM_AARCH64
    # The processor is emulated, the kernel is this machine's.
    wrapper = binary.with_name("emulated")
    wrapper.write_text(f'#!/bin/sh\nexec qemu-aarch64-static {binary} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


@dataclass
class Sleeper:
    program: Path
    folder: Path
    process: "subprocess.Popen[bytes] | None" = None

    def environ(self) -> dict[str, str]:
        return {
            "NIGHTCAP_ORDERS_DIR": str(self.folder / "orders"),
            "NIGHTCAP_SPOOL_DIR": str(self.folder),
            "NIGHTCAP_WORKER_PYTHON": str(self.folder / "worker"),
            "FOLDER": str(self.folder),
            "PATH": os.environ["PATH"],
        }

    def worker(self, script: str) -> None:
        """What stands in for Python; it notes each start."""
        path = self.folder / "worker"
        path.write_text(f'#!/bin/sh\necho "$$ $*" >> "$FOLDER/starts"\n{script}\n')
        path.chmod(0o755)

    def starts(self) -> list[str]:
        path = self.folder / "starts"
        return path.read_text().splitlines() if path.exists() else []

    def worker_pid(self, number: int = -1) -> int:
        return int(self.starts()[number].split()[0])

    def order(self, text: str) -> None:
        swap(self.folder / "orders", text)

    def start(self, *, none_left: bool = False) -> None:
        command = [str(self.program)]
        if none_left:
            script = "echo 0 > /proc/sys/user/max_inotify_instances && exec $0"
            command = ["unshare", "--map-root-user", "sh", "-c", script, *command]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                command, env=self.environ(), stderr=log, preexec_fn=_inherit_orphans
            )

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def wait(self, *arguments: str) -> tuple[int, float]:
        begin = time.monotonic()
        done = subprocess.run([self.program, "--wait", *arguments], env=self.environ(), check=False)
        return done.returncode, time.monotonic() - begin

    def terminate(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(5)

    def wait_starts(self, count: int) -> None:
        wait_for(lambda: len(self.starts()) >= count, f"{count} starts", 5)

    def switches(self) -> int:
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return sum(int(number) for number in re.findall(r"ctxt_switches:\s+(\d+)", status))


def _inherit_orphans() -> None:
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: as PID 1 does


@pytest.fixture
def sleeper(program: Path, tmp_path: Path) -> Iterator[Sleeper]:
    sleeper = Sleeper(program, tmp_path)
    sleeper.worker("exit 0")
    sleeper.order("")
    yield sleeper
    if sleeper.process is not None:
        sleeper.process.kill()
        sleeper.process.wait(5)
        assert "Sanitizer" not in sleeper.log()
        assert "runtime error" not in sleeper.log()


def is_asleep(sleeper: Sleeper) -> Callable[[], bool]:
    def state() -> bool:
        assert sleeper.process is not None
        stat = Path(f"/proc/{sleeper.process.pid}/stat").read_text()
        return stat.rsplit(")", 1)[1].split()[0] == "S"

    return state


def test_source_stays_small_and_its_paths_are_the_contracts() -> None:
    text = SOURCE.read_text()
    assert len(text.splitlines()) <= 200
    assert not re.search(r"\b(malloc|calloc|realloc|strdup|fopen|printf)\b", text)
    defined = dict(re.findall(r'#define (\w+) "(.*)"', text))
    assert defined["ORDERS_DIR"] == paths.ORDERS_DIR
    assert defined["ORDERS_FILE"] == paths.ORDERS_FILE
    assert defined["SPOOL_DIR"] == paths.SPOOL_DIR
    assert defined["OPEN_MARKER"] == paths.OPEN_MARKER
    assert defined["WORKER_SCRIPT"].endswith("/sidecar/start.py")


def test_without_orders_nothing_starts_and_nothing_wakes(sleeper: Sleeper) -> None:
    sleeper.start()
    time.sleep(0.3)
    before = sleeper.switches()
    time.sleep(1)
    assert sleeper.switches() == before
    assert sleeper.starts() == []
    assert sleeper.terminate() == 0


def test_where_no_inotify_is_left_it_is_woken_by_dnotify(sleeper: Sleeper) -> None:
    """All pods of a node share one user's 128 instances: the hundredth sidecar got none."""
    sleeper.start(none_left=True)
    time.sleep(0.3)
    before = sleeper.switches()
    time.sleep(1)
    assert sleeper.switches() == before
    sleeper.order('{"v":1}')
    sleeper.wait_starts(1)
    sleeper.order('{"v":2}')
    sleeper.wait_starts(2)
    assert "cannot be watched" not in sleeper.log()
    assert sleeper.terminate() == 0


def test_orders_start_the_worker_with_its_arguments(sleeper: Sleeper) -> None:
    sleeper.worker("sleep 60")
    sleeper.start()
    wait_for(is_asleep(sleeper), "asleep")
    sleeper.order('{"v":1}')
    sleeper.wait_starts(1)
    assert sleeper.starts()[0].split()[1:5] == ["-I", "-S", "-E", "-B"]
    assert sleeper.starts()[0].endswith("/sidecar/start.py")


def test_orders_that_are_there_at_the_start_are_seen(sleeper: Sleeper) -> None:
    sleeper.order('{"v":1}')
    sleeper.start()
    sleeper.wait_starts(1)


def test_a_worker_that_is_done_is_not_started_until_orders_change(sleeper: Sleeper) -> None:
    sleeper.order("one")
    sleeper.start()
    sleeper.wait_starts(1)
    time.sleep(0.3)
    assert len(sleeper.starts()) == 1
    sleeper.order("two")
    sleeper.wait_starts(2)
    sleeper.order("")
    time.sleep(0.3)
    assert len(sleeper.starts()) == 2
    sleeper.order("three")
    sleeper.wait_starts(3)


def test_orders_that_changed_while_a_worker_was_ending_start_another(sleeper: Sleeper) -> None:
    sleeper.worker('while [ ! -e "$FOLDER/go" ]; do sleep 0.02; done')
    sleeper.order("one")
    sleeper.start()
    sleeper.wait_starts(1)
    sleeper.order("two")
    time.sleep(0.2)
    assert len(sleeper.starts()) == 1
    (sleeper.folder / "go").touch()
    sleeper.wait_starts(2)
    time.sleep(0.3)
    assert len(sleeper.starts()) == 2


def test_a_worker_that_dies_is_started_again_later_and_later(sleeper: Sleeper) -> None:
    sleeper.worker("exit 3")
    sleeper.order("one")
    sleeper.start()
    begin = time.monotonic()
    sleeper.wait_starts(4)
    assert time.monotonic() - begin >= 0.6
    assert '"event":"worker died","status":3}' in sleeper.log()


def test_a_killed_worker_is_started_again(sleeper: Sleeper) -> None:
    sleeper.worker("exec sleep 60")
    sleeper.order("one")
    sleeper.start()
    sleeper.wait_starts(1)
    os.kill(sleeper.worker_pid(), signal.SIGKILL)
    sleeper.wait_starts(2)
    assert '"status":-9}' in sleeper.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_termination_is_passed_on_and_waits_for_the_worker(sleeper: Sleeper, number: int) -> None:
    sleeper.worker(
        'trap "sleep 0.3; touch $FOLDER/flushed; exit 0" TERM; while :; do sleep 0.05; done'
    )
    sleeper.order("one")
    sleeper.start()
    sleeper.wait_starts(1)
    time.sleep(0.2)
    assert sleeper.terminate(number) == 0
    assert (sleeper.folder / "flushed").exists()


def test_orphans_are_reaped(sleeper: Sleeper) -> None:
    sleeper.worker('(sleep 0.4 & echo $! > "$FOLDER/orphan")\nexec sleep 60')
    sleeper.order("one")
    sleeper.start()
    wait_for(lambda: _text(sleeper.folder / "orphan").endswith("\n"), "orphan")
    assert sleeper.process is not None
    orphan = Path("/proc", _text(sleeper.folder / "orphan").strip())
    parent = f") S {sleeper.process.pid} "
    wait_for(lambda: parent in _text(orphan / "stat"), "inherited", 0.3)
    wait_for(lambda: not orphan.exists(), "reaped", 2)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def test_a_folder_that_cannot_be_watched_is_looked_at_now_and_then(sleeper: Sleeper) -> None:
    for entry in sleeper.folder.joinpath("orders").iterdir():
        if entry.is_symlink():
            entry.unlink()
    for entry in sleeper.folder.joinpath("orders").iterdir():
        entry.joinpath("orders").unlink()
        entry.rmdir()
    sleeper.folder.joinpath("orders").rmdir()
    sleeper.start()
    wait_for(lambda: "cannot be watched" in sleeper.log(), "said")
    sleeper.order("one")
    wait_for(lambda: sleeper.starts(), "started", 2)


def test_waiting_returns_at_once_without_orders(sleeper: Sleeper) -> None:
    status, seconds = sleeper.wait("3s")
    assert status == 0
    assert seconds < 1


def test_waiting_returns_when_the_captures_are_open(sleeper: Sleeper) -> None:
    sleeper.order("one")
    (sleeper.folder / ".open").touch()
    status, seconds = sleeper.wait("3s")
    assert status == 0
    assert seconds < 1


@pytest.mark.parametrize("text", ["300ms", "1s"])
def test_waiting_ends_well_when_nothing_opens(sleeper: Sleeper, text: str) -> None:
    sleeper.order("one")
    status, seconds = sleeper.wait(text)
    assert status == 0
    assert (0.25 if text == "300ms" else 0.9) < seconds < 2


@pytest.mark.parametrize("text", ["", "soon", "-1s", "99999999999999999999s"])
def test_waiting_for_nonsense_ends_well_too(sleeper: Sleeper, text: str) -> None:
    status, _ = sleeper.wait(text)
    assert status == 0


def test_the_marker_of_an_earlier_life_is_removed(sleeper: Sleeper) -> None:
    (sleeper.folder / ".open").touch()
    sleeper.start()
    wait_for(lambda: not (sleeper.folder / ".open").exists(), "removed")
