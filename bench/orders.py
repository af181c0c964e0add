"""Orders for a sidecar, put into its folder as the kubelet does it."""

import time
from pathlib import Path
from typing import Final

from nightcap.contract.orders import CaptureOrder, Limit, Orders, Rotation, dump_orders

CAPTURE: Final = "0a1b2c3d-0000-4000-8000-000000000001"


def the_orders(expression: str, rotate_bytes: int = 10**7, rotate_files: int = 10) -> str:
    """One capture of eth0 for the next hour, without limits and without a collector."""
    order = CaptureOrder(
        id=CAPTURE,
        namespace="bench",
        name="bench",
        until=int(time.time()) + 3600,
        filter=expression,
        interfaces=("eth0",),
        rotation=Rotation(max_bytes=rotate_bytes, max_seconds=3600, max_files=rotate_files),
        limit=Limit(bytes=0, packets=0),
    )
    return dump_orders(Orders((), (order,)))


def swap(folder: Path, text: str) -> float:
    """Write the orders as the kubelet's AtomicWriter does.

    Returns:
        The monotonic time right before the rename that makes them visible.
    """
    folder.mkdir(exist_ok=True)
    link = folder / "..data"
    old = folder / link.readlink() if link.is_symlink() else None
    new = folder / f"..{time.monotonic_ns()}"
    new.mkdir()
    (new / "orders").write_text(text)
    (folder / "..data_tmp").symlink_to(new.name)
    before = time.monotonic()
    (folder / "..data_tmp").rename(link)
    if not (folder / "orders").is_symlink():
        (folder / "orders").symlink_to("..data/orders")
    if old is not None:
        (old / "orders").unlink()
        old.rmdir()
    return before
