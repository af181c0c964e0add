import os
import signal
import subprocess
import sys

from tests.cluster import processes


def test_a_start_time_tells_a_process_from_a_later_one_with_its_id() -> None:
    own = processes.start_time(os.getpid())
    assert own is not None
    program = processes.Program("x", ("true",), "nowhere")
    assert processes.Record(program, os.getpid(), own).is_alive
    assert not processes.Record(program, os.getpid(), own - 1).is_alive


def test_a_zombie_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert processes.start_time(child.pid) is None
    child.wait()
    assert processes.start_time(child.pid) is None


def test_who_ignores_the_request_is_ended_all_the_same() -> None:
    ignore = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    )
    stubborn = subprocess.Popen([sys.executable, "-c", ignore], stdout=subprocess.PIPE)
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    polite = subprocess.Popen(["sleep", "60"])
    processes.end([stubborn.pid, polite.pid], grace_seconds=0.2)
    assert polite.wait() == -signal.SIGTERM
    assert stubborn.wait() == -signal.SIGKILL
    stubborn.stdout.close()


def test_ending_who_is_gone_is_no_error() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    processes.end([child.pid], grace_seconds=0)
