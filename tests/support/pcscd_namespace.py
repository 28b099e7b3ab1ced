"""The first process in the namespaces of a private pcscd (see pcscd.py). Standard library only.

    unshare --mount --net python3 pcscd_namespace.py SOCKET_FOLDER PCSCD VPCD_LIBRARY NAME

Standard input is a Unix socket of datagrams. Each request is answered:

    start           pcscd is started                 ready | failed: WHY
    stop            it is ended (SIGTERM)            stopped
    kill            it is killed                     stopped
    connect PORT    a TCP connection to 127.0.0.1    connected, with the socket | refused ERRNO

At the end of standard input pcscd is ended and so is this process.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import time

READY = b"daemon ready"
PORT = 0x8C7B
SOCKET = "/run/pcscd/pcscd.comm"
ATTEMPTS, PAUSE = 10_000, 0.001
# vpcd's queue holds one; with a dead connection in it the kernel tries again after seconds, we sooner.
CONNECT_SECONDS = 0.5
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
READER = """FRIENDLYNAME "{name}"
DEVICENAME /dev/null:{port:#x}
LIBPATH {library}
CHANNELID {port:#x}
"""


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def prepare(folder: pathlib.Path, library: str, name: str) -> None:
    """What pcscd writes under /run is ours alone, and its socket can be reached from outside in ``folder``."""
    mount("--make-rprivate", "/")
    # Bound before /run is covered: the folder may lie there.
    mount("--bind", str(folder), "/mnt")
    mount("-t", "tmpfs", "tmpfs", "/run")
    pathlib.Path("/run/pcscd").mkdir()
    mount("--bind", "/mnt", "/run/pcscd")
    pathlib.Path("/run/readers").mkdir()
    pathlib.Path("/run/readers/vpcd").write_text(READER.format(port=PORT, library=library, name=name))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


class Daemon:
    """pcscd, in the foreground, with its log where we can read that it is ready."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> bytes:
        command = [self.program, "--foreground", "--info", "--config", "/run/readers"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if READY in line:
                self.drain()
                self.wait_for_socket()
                return b"ready"
        return b"failed: " + b"".join(lines)

    def wait_for_socket(self) -> None:
        """It says that it is ready before it listens, and nothing tells when it does."""
        for _ in range(ATTEMPTS):
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                client.connect(SOCKET)
                return
            time.sleep(PAUSE)

    def drain(self) -> None:
        """Let the log run into nothing; pcscd must not wait for a reader of it."""
        assert self.process is not None
        assert self.process.stdout is not None
        subprocess.Popen(["cat"], stdin=self.process.stdout, stdout=subprocess.DEVNULL)
        self.process.stdout.close()

    def end(self, number: signal.Signals) -> bytes:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait()
            self.process = None
        return b"stopped"


def connect(requests: socket.socket, port: int) -> None:
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=CONNECT_SECONDS)
    except OSError as error:
        requests.send(b"refused %d" % (error.errno or errno.ETIMEDOUT))
        return
    with connection:
        socket.send_fds(requests, [b"connected"], [connection.fileno()])


def serve(requests: socket.socket, daemon: Daemon) -> None:
    while request := requests.recv(64):
        match request.split():
            case [b"start"]:
                requests.send(daemon.start())
            case [b"stop"]:
                requests.send(daemon.end(signal.SIGTERM))
            case [b"kill"]:
                requests.send(daemon.end(signal.SIGKILL))
            case [b"connect", port]:
                connect(requests, int(port))


def main() -> None:
    folder, program, library, name = sys.argv[1:]
    daemon = Daemon(program)
    with socket.socket(fileno=os.dup(0)) as requests, contextlib.ExitStack() as stack:
        stack.callback(daemon.end, signal.SIGTERM)
        prepare(pathlib.Path(folder), library, name)
        requests.send(b"prepared")
        serve(requests, daemon)


if __name__ == "__main__":
    main()
