"""What a Service does on a cluster: each connection goes to the next replica."""

import contextlib
import itertools
import socket
import struct
import threading

_BACKLOG = 4096
"""As many as the API server opens at once: who finds no place tries again after a whole second."""


class Balancer:
    """Forwards TCP connections to some loopback ports in turn.

    To a dead one, too, as kube-proxy does until the endpoint has gone; `ports` may be changed.

    Attributes:
        pause_seconds: After each piece that is forwarded; may be changed. A slow network.
        piece_bytes: The most that is forwarded at once.
    """

    pause_seconds = 0.0
    piece_bytes = 65536

    def __init__(
        self,
        ports: list[int],
        listening: socket.socket | None = None,
        *,
        ends_abruptly: bool = False,
    ) -> None:
        """Begin.

        Args:
            ports: Of this network namespace.
            listening: A socket that is bound, perhaps in another one; by default some port of ours.
            ends_abruptly: Whether both sides are reset when one ends, as if a process had died.
        """
        self.ports = ports
        self._ends_abruptly = ends_abruptly
        self._turns = itertools.count()
        self._closing = threading.Event()
        self._open: list[socket.socket] = []
        self._listening = listening or socket.create_server(("127.0.0.1", 0))
        self._listening.listen(_BACKLOG)
        self.port: int = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, name="balancer")]
        self._threads[0].start()

    def close(self) -> None:
        self._closing.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(10)
        self._listening.close()
        self.cut()
        for thread in self._threads[1:]:
            thread.join(10)
        for each in self._open:
            each.close()

    def cut(self) -> None:
        """Break every connection that is open; new ones are taken."""
        for each in tuple(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            try:
                port = self.ports[next(self._turns) % len(self.ports)]
                far = socket.create_connection(("127.0.0.1", port))
            except OSError:
                near.close()
                continue
            self._open += [near, far]
            for pair in ((near, far), (far, near)):
                thread = threading.Thread(target=self._pump, args=pair, name="balancer")
                self._threads.append(thread)
                thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(self.piece_bytes):
                sink.sendall(data)
                self._closing.wait(self.pause_seconds)
        for each in (source, sink) if self._ends_abruptly else ():
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
