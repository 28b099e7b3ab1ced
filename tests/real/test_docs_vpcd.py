"""The recipe for vpcd in a network of its own, as the document says it, line by line."""

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from documents import DOCUMENTS, name
from pcsc_client import require_pyscard
from pcscd import READERS, SECONDS

LINE = re.compile(r"^\$ (.*)$", re.MULTILINE)
BEGIN, READY_AFTER, END = "unshare ", "demail-hw simulate vpcd &", "exit"


def recipe() -> tuple[str, list[str], list[str]]:
    """The line that makes the namespaces, what is typed until the card is there, and what is typed then."""
    (page,) = [path for path in DOCUMENTS if name(path) == "docs/testing-with-simulators.md"]
    lines = LINE.findall(page.read_text(encoding="utf-8"))
    begin = next(number for number, line in enumerate(lines) if line.startswith(BEGIN))
    ready, end = lines.index(READY_AFTER) + 1, lines.index(END) + 1
    return lines[begin], lines[begin + 1 : ready], lines[ready:end]


@pytest.mark.skipif(os.geteuid() != 0, reason="the recipe is for root")
def test_the_recipe_works_as_it_is_written(
    pytestconfig: pytest.Config, tool: Callable[[str], str], tmp_path: pathlib.Path
) -> None:
    require_pyscard(pytestconfig)
    for program in ("unshare", "ip", "pcscd", "opensc-tool", "/usr/lib/pcsc/drivers/serial/libifdvpcd.so"):
        tool(program)
    programs = pathlib.Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}:/usr/sbin:{os.environ['PATH']}"}
    environment.pop("PCSCLITE_CSOCK_NAME", None)
    enter, before, after = recipe()
    with subprocess.Popen(
        enter.split(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=tmp_path,
        env=environment,
        text=True,
    ) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        shell.stdin.write("\n".join([*before, ""]))
        shell.stdin.flush()
        assert any(line.startswith("vpcd ready: ") for line in shell.stdout)
        said, _ = shell.communicate("\n".join([*after, ""]), timeout=SECONDS)
    assert "PKCS#15 Card [NetKey V3 Card]" in said
    for reader in READERS:
        assert f"  {reader}  " in said
    assert "89490173510080407136" in said
