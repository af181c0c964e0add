"""The projected orders file: read it, and notice when the kubelet swaps it."""

import ctypes
import os
from typing import Final

from nightcap.contract import paths
from sidecar import log

_MOVED_TO: Final = 0x80
_ONLY_DIRECTORY: Final = 0x01000000
_DATA: Final = "..data"
_ATTEMPTS: Final = 3


class OrdersFile:
    """The folder that the kubelet swaps as a whole by renaming its link `..data`.

    Attributes:
        fd: Readable after a swap; -1 where the kernel does not notify. Look at `changed` now and
            then all the same: some file systems never notify.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._seen = ""
        self.fd = _watch(folder)

    def changed(self) -> bool:
        """Whether there is another version than the last that was read."""
        self._drain()
        return self._version() != self._seen

    def read(self) -> str | None:
        """The orders as they stand; None when they cannot be had now."""
        # Noted before reading, so that a swap in between is a change.
        self._seen = self._version()
        for _ in range(_ATTEMPTS):
            try:
                with open(f"{self._folder}/{paths.ORDERS_FILE}", "rb") as file:
                    text = file.read()
            except FileNotFoundError:
                continue  # the folder behind the link goes right after a swap
            except OSError as error:
                log.error("orders cannot be read", error=error)
                return None
            return text.decode("utf-8", "replace")
        return None

    def _version(self) -> str:
        try:
            return os.readlink(f"{self._folder}/{_DATA}")
        except OSError:
            return self._seen

    def _drain(self) -> None:
        if self.fd >= 0:
            try:
                os.read(self.fd, 4096)
            except BlockingIOError:
                return


def _watch(folder: str) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    fd = int(library.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
    if fd < 0:
        return -1
    if library.inotify_add_watch(fd, os.fsencode(folder), _MOVED_TO | _ONLY_DIRECTORY) < 0:
        os.close(fd)
        return -1
    return fd
