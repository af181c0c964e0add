"""A process that takes part in an election, and writes down each moment at which it leads.

    python elector_process.py KUBECONFIG NAMESPACE LEASE IDENTITY FILE

Ends, and gives the Lease back, on SIGTERM.
"""

import signal
import sys
import threading
import time
from pathlib import Path

from nightcap.kube.client import KubeClient
from nightcap.kube.elector import ElectionSettings, Elector

SETTINGS = ElectionSettings(lease_seconds=3, deadline_seconds=2, retry_seconds=0.4)


def main() -> None:
    """Take part until told to stop."""
    kubeconfig, namespace, lease, identity, file = sys.argv[1:]
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    elector = Elector(
        KubeClient.from_environment(kubeconfig), namespace, lease, identity, settings=SETTINGS
    )
    elector.start()
    with Path(file).open("a", buffering=1) as out:
        while not stopping.is_set():
            # One clock for all processes of a machine; asked before and after, so that the
            # moment of leading lies between the two.
            before = time.monotonic()
            leads = elector.is_leader
            after = time.monotonic()
            if leads:
                out.write(f"{before} {after} {identity}\n")
            time.sleep(0.005)
    elector.stop()


if __name__ == "__main__":
    main()
