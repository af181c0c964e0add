"""The whole sidecar as it runs in a pod: the dormant program, the worker, the collector."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from nightcap.contract.orders import Limit, Rotation
from nightcap.contract.reports import Reason, State
from tests.netns.collector import Collector
from tests.netns.net import Link
from tests.netns.pods import ID, ID_2, Pod, an_order, wait_for
from tests.netns.test_shipping import arrived
from tests.netns.written import numbers

pytestmark = pytest.mark.netns


def workers(pod: Pod) -> list[int]:
    assert pod.process is not None
    children = Path(f"/proc/{pod.process.pid}/task/{pod.process.pid}/children").read_text()
    return [int(child) for child in children.split()]


def test_it_sleeps_wakes_records_ships_and_sleeps_again(
    shipping_pod: Pod, collector: Collector, dormant: Path
) -> None:
    pod = shipping_pod
    pod.order_text("")
    # As in the image: root with one capability, so nothing may rest on reading others' files.
    pod.start(dormant=dormant, capabilities="-all,+net_raw")
    time.sleep(0.3)
    assert workers(pod) == []
    pod.order(an_order(limit=Limit(bytes=0, packets=50)))
    waited = subprocess.run([dormant, "--wait", "5s"], env=pod.variables(), check=False)
    assert waited.returncode == 0
    assert (pod.spool / ".open").exists()
    pod.link.send(60)
    wait_for(lambda: not workers(pod), "asleep again", 10)
    assert numbers(*collector.files(ID).values()) == list(range(50))
    # The next change wakes it again, and what is done is not done twice.
    pod.order(an_order(limit=Limit(bytes=0, packets=50)), an_order(id=ID_2))
    wait_for(lambda: (report := collector.report(ID_2)) and report.state is State.WAITING, "second")
    assert pod.terminate() == 0
    assert pod.events().count("capture begun") == 2


def test_an_upload_that_a_proxy_opens_anew_is_noticed_and_stopped(
    pod: Pod, collector: Collector, tmp_path: Path
) -> None:
    """Like a mesh: what is sent to the collector leaves the pod a second time, from elsewhere.

    A capture that does not see it goes on.
    """
    pod.collectors = ((pod.link.pod.address, 20443),)
    pod.environ = {"NIGHTCAP_LOOP_SECONDS": "2"}
    pod.order(an_order(filter=""), an_order(id=ID_2))
    with (
        pod.link.peer.socket(kind=socket.SOCK_STREAM) as listening,
        forwarder(pod.link, port=20443, to=15008),
    ):
        listening.bind((pod.link.peer.address, 15008))
        server = collector.serve(listening, tmp_path / "tls")
        pod.start()
        pod.wait_open()
        # Trials that a busy machine spoils are made up for by others.
        wait_for(lambda: (told := collector.report(ID)) and told.reason is Reason.LOOP, "told", 90)
        size = sum(map(len, collector.files(ID).values()))
        time.sleep(1)
        assert sum(map(len, collector.files(ID).values())) == size
        pod.link.send(20)
        wait_for(lambda: arrived(collector, ID_2) == list(range(20)), "the other goes on")
        other = collector.report(ID_2)
        assert other is not None
        assert other.reason is Reason.NONE
        # Without recording there is no loop: what is left is shipped at the end.
        assert pod.terminate() == 0
        told = collector.report(ID)
        assert told is not None
        assert (told.state, told.shipped) == (State.FINISHED, True)
        server.shutdown()
        server.server_close()


def test_busy_applications_are_not_taken_for_loops(shipping_pod: Pod, collector: Collector) -> None:
    """One sends all the time, one is silent for most of it, in step with the windows of trials.

    The kernel hands packets over ten times a second: in pauses of a tenth, steady traffic
    collapsed by itself, and was taken for a loop.
    """
    pod = shipping_pod
    pod.environ = {"NIGHTCAP_LOOP_SECONDS": "1"}
    pod.order(an_order(), an_order(id=ID_2, filter="udp dst port 5354"))
    pod.start()
    pod.wait_open()
    sent = 0
    end = time.monotonic() + 60
    while pod.events().count("looked for a loop") < 3:
        pod.link.send(20, size=500, first=sent)
        sent += 20
        if time.monotonic() % 0.55 < 0.1:
            pod.link.send(80, port=5354, size=500)
        assert time.monotonic() < end, "nothing was tried"
        time.sleep(0.02)
    wait_for(lambda: arrived(collector) == list(range(sent)), "all arrived", 15)
    assert Reason.LOOP not in {report.reason for _, report in collector.reports}
    assert "upload is recorded, shipping stops" not in pod.events()
    assert pod.terminate() == 0


@contextmanager
def forwarder(link: Link, *, port: int, to: int) -> Iterator[None]:
    """A proxy in the pod: whatever comes to its port goes on to the peer."""
    with link.pod.socket(kind=socket.SOCK_STREAM) as listening:
        listening.bind((link.pod.address, port))
        listening.listen()

        def pump(source: socket.socket, sink: socket.socket) -> None:
            with suppress(OSError):
                while data := source.recv(65536):
                    sink.sendall(data)
            source.close()
            sink.close()

        def accept() -> None:
            with suppress(OSError):
                while True:
                    near, _ = listening.accept()
                    far = link.pod.socket(kind=socket.SOCK_STREAM)
                    far.connect((link.peer.address, to))
                    for pair in ((near, far), (far, near)):
                        threading.Thread(target=pump, args=pair, daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_a_killed_worker_comes_back_and_nothing_that_was_written_is_lost(
    shipping_pod: Pod, collector: Collector, dormant: Path
) -> None:
    pod = shipping_pod
    pod.order(an_order())
    pod.start(dormant=dormant)
    pod.wait_open()
    pod.link.send(100)
    wait_for(lambda: len(numbers(*collector.files(ID).values())) == 100, "arrived")
    os.kill(workers(pod)[0], signal.SIGKILL)
    wait_for(lambda: pod.events().count("interface opened") == 2, "open again")
    pod.link.send(100, first=100)
    time.sleep(0.3)
    assert pod.terminate() == 0
    assert numbers(*collector.files(ID).values()) == list(range(200))
    assert "worker died" in pod.events()


def test_of_a_worker_that_is_killed_under_load_every_packet_is_shipped_or_counted(
    shipping_pod: Pod, collector: Collector, dormant: Path
) -> None:
    """What was in no file yet when it died is gone with it; all before and after is there once."""
    pod = shipping_pod
    pod.order(an_order(rotation=Rotation(max_bytes=50_000, max_files=1000)))
    pod.start(dormant=dormant)
    pod.wait_open()
    for first in range(0, 4000, 500):
        pod.link.send(500, first=first)
        time.sleep(0.1)
    os.kill(workers(pod)[0], signal.SIGKILL)
    wait_for(lambda: pod.events().count("interface opened") == 2, "open again")
    pod.link.send(500, first=10_000)
    wait_for(lambda: arrived(collector)[-500:] == list(range(10_000, 10_500)), "arrived", 15)
    assert pod.terminate() == 0
    found = arrived(collector)
    assert found == sorted(set(found))
    first_life = [number for number in found if number < 10_000]
    # Flushed every half second: at most the last of eight tenths are missing.
    assert first_life == list(range(len(first_life)))
    assert len(first_life) >= 500
    last = collector.report(ID)
    assert last is not None
    assert (last.packets, last.shipped) == (len(found), True)
    assert last.lost.segments == 0
