"""A pcapng file of USB/IP connections, as the two ends see them: decrypted if they are TLS, PINs masked."""

import errno
import logging
import os
import re
import stat
import threading
import time
from pathlib import Path
from typing import Final, TypeAlias

from demail_hw.ccid.capture_mask import CcidMask
from demail_hw.errors import ConfigurationError
from demail_hw.traces.output_file import Mark, open_to_append
from demail_hw.usbip.capture import Capture, CapturedClient, CapturedServer
from demail_hw.usbip.messages import DEFAULT_PORT
from demail_hw.usbip.pcapng import Endpoint, TcpFrames, section_header

__all__ = ["CaptureFile"]

Ends: TypeAlias = tuple[tuple[str, int], tuple[str, int]]

_LOG = logging.getLogger(__name__)
_SECTION: Final = section_header("demail-hw")
_MARK: Final = Mark("capture", re.compile(re.escape(_SECTION)))


class CaptureFile:
    """A file that takes the frames of any number of connections; several processes may append to one.

    It is made for its owner alone, because mail that is decrypted may pass. One that is there goes on if it is a
    capture of ours, or empty; any other is left as it is, for its name was a slip. Nothing stays open between two
    frames, so that there is nothing to close.

    Errors: :class:`~demail_hw.errors.ConfigurationError` if it cannot be written. What cannot be written later is
    said in the log once, and the connections go on without a capture.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._broken = False
        try:
            self._append(_SECTION)
        except OSError as error:
            raise ConfigurationError(
                f"The capture file {path} cannot be written: {error.strerror}.", file=path, remedy="Name another."
            ) from error

    def client(self, ends: Ends, server: str) -> CapturedClient:
        """The machine for a connection between these ``ends``, ours first; ``server``: a name for people."""
        return CapturedClient(self._capture(*ends, f"the server {server}"))

    def server(self, ends: Ends) -> CapturedServer:
        """The machine for a connection that came in between these ``ends``, ours first."""
        ours, theirs = ends
        return CapturedServer(self._capture(theirs, ours, "a client"))

    def _capture(self, client: tuple[str, int], server: tuple[str, int], peer: str) -> Capture:
        comment = f"USB/IP with {peer}, TCP port {server[1]}, as the program saw it; PINs are masked."
        # The port that analysers know, whatever the real one: that stands in the comment.
        frames = TcpFrames(Endpoint(_address(client[0]), client[1]), Endpoint(_address(server[0]), DEFAULT_PORT))
        return Capture(
            frames, CcidMask(), write=self._write, now=time.time_ns, comment=comment, lock=threading.Lock()
        )

    def _write(self, block: bytes) -> None:
        if self._broken:
            return
        try:
            self._append(block)
        except (OSError, ConfigurationError) as error:
            self._broken = True
            why = error.message if isinstance(error, ConfigurationError) else error.strerror
            _LOG.error("the capture in %s ends here: %s", self._path, why)

    def _append(self, block: bytes) -> None:
        """In one write, so that blocks stay whole whoever else appends; a file that was taken away begins anew."""
        descriptor = open_to_append(self._path, _MARK)
        try:
            there = os.fstat(descriptor)
            if stat.S_ISREG(there.st_mode) and not there.st_size and block != _SECTION:
                block = _SECTION + block
            if os.write(descriptor, block) != len(block):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)


def _address(host: str) -> str:
    """Without the zone of an IPv6 address, which no packet has."""
    return host.partition("%")[0]
