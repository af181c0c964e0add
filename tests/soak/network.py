"""Pods' network namespaces around a hub, and a way to the collector that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass

HUB = "10.79.0.1"
"""Where sidecars reach the collector."""


@dataclass(frozen=True)
class PodLink:
    """One pod's namespace, joined to the hub, which is the namespace of this process."""

    namespace: str
    address: str

    def command(self, *arguments: str) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *arguments]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def star(count: int) -> Iterator[list[PodLink]]:
    """So many pods, each on a link of its own; to be used in a namespace of one's own."""
    links = [
        PodLink(f"nightcap-soak-{os.getpid()}-{number}", f"10.79.{number + 1}.1")
        for number in range(count)
    ]
    ip("link", "set", "lo", "up")
    ip("address", "add", f"{HUB}/32", "dev", "lo")
    try:
        for number, link in enumerate(links):
            there, here = ("-n", link.namespace), f"pod{number}"
            ip("netns", "add", link.namespace)
            ip(*there, "link", "set", "lo", "up")
            ip("link", "add", here, "type", "veth", "peer", "eth0", "netns", link.namespace)
            ip("address", "add", f"10.79.{number + 1}.2/24", "dev", here)
            ip("link", "set", here, "up")
            ip(*there, "address", "add", f"{link.address}/24", "dev", "eth0")
            ip(*there, "link", "set", "eth0", "up")
            ip(*there, "route", "add", "default", "via", f"10.79.{number + 1}.2")
        yield links
    finally:
        for link in links:
            subprocess.run(["ip", "netns", "delete", link.namespace], capture_output=True)


class Way:
    """Passes connections on to the collector, and cuts them when it is told to."""

    def __init__(self, port: int, target: int) -> None:
        self._port = port
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def cut(self, source: random.Random) -> None:
        """Reset all connections, or one, whatever is on its way in them."""

        def reset() -> None:
            victims = list(self._open)
            if victims and source.random() < 0.7:
                victims = [source.choice(victims)]
            for writer in victims:
                writer.transport.abort()

        self._loop.call_soon_threadsafe(reset)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(asyncio.start_server(self._accept, HUB, self._port))
        self._loop.run_forever()
        for task in self._tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._open.add(writer)
        try:
            there_reader, there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            self._close(writer)
            return
        self._open.add(there)
        try:
            await asyncio.gather(_copy(reader, there), _copy(there_reader, writer))
        finally:
            self._close(writer)
            self._close(there)

    def _close(self, writer: asyncio.StreamWriter) -> None:
        self._open.discard(writer)
        writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.transport.abort()
