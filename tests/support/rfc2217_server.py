"""A COM server of pyserial's parts (RFC 2217), in front of a pseudo-terminal. A context manager; ``port``: TCP."""

import contextlib
import os
import selectors
import socket
import threading
from collections.abc import Iterator

import serial
from serial.rfc2217 import PortManager

__all__ = ["com_server"]

READ_SIZE = 4096


class PtySerial(serial.Serial):
    """A pseudo-terminal has no modem lines."""

    cts = dsr = ri = cd = False

    def _update_rts_state(self) -> None:
        pass

    def _update_dtr_state(self) -> None:
        pass


class Connection:
    """What the port manager writes to: the telnet options."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client

    def write(self, data: bytes) -> None:
        self.client.sendall(data)


def serve(listener: socket.socket, stop: socket.socket, path: str) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(stop, selectors.EVENT_READ)
        if any(key.fileobj is stop for key, _ in selector.select()):
            return
    client, _ = listener.accept()
    with client, PtySerial(path, timeout=0) as line, selectors.DefaultSelector() as selector:
        manager = PortManager(line, Connection(client))
        for source in (client, line, stop):
            selector.register(source, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if client in ready:
                data = client.recv(READ_SIZE)
                if not data:
                    return
                line.write(b"".join(manager.filter(data)))
            if line in ready:
                client.sendall(b"".join(manager.escape(os.read(line.fileno(), READ_SIZE))))
            if stop in ready:
                return


@contextlib.contextmanager
def com_server(path: str) -> Iterator[int]:
    """One client is served."""
    ours, theirs = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener, ours, theirs:
        thread = threading.Thread(target=serve, args=(listener, theirs, path))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ours.shutdown(socket.SHUT_WR)
            thread.join()
