"""OpenSC's programs against a simulated card, with a configuration and a home of the test's own."""

import pathlib
from collections.abc import Mapping
from typing import Final

from pcscd import PrivatePcscd, ToolRun

__all__ = ["ERRORS", "OpenSc"]

CONFIGURATION: Final = "app default {\n  framework pkcs15 {\n    use_file_caching = false;\n  }\n}\n"
ERRORS: Final[Mapping[str, str]] = {
    "pin": "PIN code or key incorrect",
    "blocked": "Authentication method blocked",
    "arguments": "Invalid arguments",
    "length": "Invalid PIN length",
    "not allowed": "Not allowed",
    "not supported": "Card does not support the requested operation",
}
"""What OpenSC 0.23 says."""


class OpenSc:
    """``folder``: for its configuration and for files."""

    def __init__(self, pcscd: PrivatePcscd, folder: pathlib.Path) -> None:
        self.folder = folder
        self._pcscd = pcscd
        configuration = folder / "opensc.conf"
        configuration.write_text(CONFIGURATION, encoding="ascii")
        pcscd.environment = {
            **pcscd.environment,
            "OPENSC_CONF": str(configuration),
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
        }

    def run(self, *command: str) -> ToolRun:
        """Run a program, however it ends."""
        return self._pcscd.run(*command)

    def good(self, *command: str) -> str:
        """Run a program that must end well; what it printed."""
        ended = self.run(*command)
        assert ended.returncode == 0, (command, ended.stdout, ended.stderr)
        return ended.stdout

    def bad(self, *command: str) -> str:
        """Run a program that must fail; all that it said."""
        ended = self.run(*command)
        assert ended.returncode != 0, (command, ended.stdout, ended.stderr)
        return ended.stdout + ended.stderr

    def file(self, name: str, content: bytes = b"") -> str:
        """A file in the folder; its path."""
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def explore(self, *lines: str) -> str:
        """What opensc-explorer says to these lines."""
        script = self.file("script", "\n".join((*lines, "quit", "")).encode())
        ended = self.run("opensc-explorer", script)
        return ended.stdout + ended.stderr
