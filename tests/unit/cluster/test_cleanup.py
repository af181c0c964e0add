from pathlib import Path

import pytest

from tests.cluster.cleanup import ending_order, mounts_below

STATE = Path("/var/lib/state")


@pytest.mark.parametrize(
    ("recorded", "marked", "contained", "order"),
    [
        ({}, [], [], []),
        ({"etcd": 2, "node1-kubelet": 3}, [2, 3], [], [[3], [2]]),
        (
            {"node1-kubelet": 3, "node1-containerd": 4},
            [3, 4, 50, 51],
            [60, 61],
            [[3], [4, 50, 51], [60, 61]],
        ),
        ({}, [50], [60], [[50], [60]]),
        ({"etcd": 2}, [2, 60], [60], [[2, 60]]),
    ],
    ids=[
        "nothing runs",
        "kubelets first",
        "then runtimes and shims, then containers",
        "after a kill of all recorded ones",
        "no process twice",
    ],
)
def test_supervisors_end_before_what_they_would_start_again(
    recorded: dict[str, int], marked: list[int], contained: list[int], order: list[list[int]]
) -> None:
    assert ending_order(recorded, marked, contained) == order


def test_mounts_below_the_folder_come_deepest_and_latest_first() -> None:
    mountinfo = "\n".join(
        f"{number} 1 0:{number} / {point} rw - ext4 /dev/x rw"
        for number, point in enumerate(
            [
                "/",
                "/var/lib/state/node1",
                "/var/lib/state/node1/pods/a",
                "/var/lib/state/node1/pods/a",
                "/var/lib/stateless/node1",
                r"/var/lib/state/with\040blank",
                "/var/lib/other",
            ]
        )
    )
    assert [str(point) for point in mounts_below(mountinfo, STATE)] == [
        "/var/lib/state/node1/pods/a",
        "/var/lib/state/node1/pods/a",
        "/var/lib/state/with blank",
        "/var/lib/state/node1",
    ]
