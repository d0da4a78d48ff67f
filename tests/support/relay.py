"""A TCP relay that a test can cut: nothing passes from then on, what is under way included."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Relay:
    """Pass connections to a port of 127.0.0.1 on to another port there, until `cut`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close every connection and take no further one. Twice is fine."""
        self._listener.close()
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._sockets.append(near)
                with suppress(OSError):
                    far = socket.create_connection(("127.0.0.1", self._target), timeout=10)
                    far.settimeout(None)
                    self._sockets.append(far)
                    for pair in ((near, far), (far, near)):
                        threading.Thread(target=_copy, args=pair, daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(65536):
            sink.sendall(content)
    for one in (source, sink):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
