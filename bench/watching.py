"""Wait for a name to appear in a folder, without taking the processor from who makes it."""

import ctypes
import os
import select
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CREATE = 0x100
_MOVED_TO = 0x80
_EVENT = struct.Struct("iIII")


class Watch:
    """An inotify watch of some folders."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "no inotify (sysctl fs.inotify.max_user_instances)")
        self._folders: dict[int, Path] = {}

    def add(self, folder: Path) -> None:
        """Watch one more folder for names that come."""
        number = self._libc.inotify_add_watch(self.fd, os.fsencode(folder), _CREATE | _MOVED_TO)
        if number < 0:
            raise OSError(ctypes.get_errno(), f"cannot watch {folder}")
        self._folders[number] = folder

    def next(self, timeout_seconds: float) -> list[tuple[Path, float]]:
        """Names that came, with the monotonic time of seeing them; none at the timeout."""
        if not select.select([self.fd], [], [], timeout_seconds)[0]:
            return []
        now = time.monotonic()
        data = os.read(self.fd, 65536)
        names = []
        while data:
            number, _, _, length = _EVENT.unpack_from(data)
            name = data[_EVENT.size : _EVENT.size + length].rstrip(b"\0")
            names.append((self._folders[number] / os.fsdecode(name), now))
            data = data[_EVENT.size + length :]
        return names

    def wait_for(self, path: Path, timeout_seconds: float = 10) -> float:
        """The monotonic time at which `path` came."""
        end = time.monotonic() + timeout_seconds
        while (left := end - time.monotonic()) > 0:
            for name, at in self.next(left):
                if name == path:
                    return at
        raise TimeoutError(f"{path} did not come within {timeout_seconds:g} s")

    def close(self) -> None:
        os.close(self.fd)


@contextmanager
def watching(*folders: Path) -> Iterator[Watch]:
    """Watch these folders from now on."""
    watch = Watch()
    try:
        for folder in folders:
            watch.add(folder)
        yield watch
    finally:
        watch.close()
