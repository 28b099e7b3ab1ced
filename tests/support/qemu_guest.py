"""The first process of the virtual machine (see qemu.py). Standard library only: it runs under Debian's own Python.

It connects to the test at 10.0.2.2 and does what it is told, one JSON line after the other:

    {"do": "run", "command": [...], "seconds": N}               {"rc": 0, "out": "...", "err": "..."}
    {"do": "until", ..., "text": "...", "absent": false}        the same, run again until its output has the text
    {"do": "start", "name": "...", "command": [...]}            {"pid": 1}; its output goes to /run/NAME.log
    {"do": "signal", "name": "...", "number": 15}               {"rc": 0}, once it has ended

The machine is switched off at the end of the connection.
"""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time
from typing import Any

HOST = "10.0.2.2"
BUSYBOX = "/usr/bin/busybox"
MOUNTS = (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run"), ("tmpfs", "/tmp"))
MODULES = ("usb-common", "usbcore", "usbip-core", "vhci-hcd", "e1000")
PAUSE = 0.02
POWER_OFF_SECONDS = 5
ENVIRONMENT = {
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "PATH": "/usr/local/bin:/usr/sbin:/usr/bin",
    "PYTHONPATH": "/project",
}

started: dict[str, subprocess.Popen[bytes]] = {}


def busybox(*words: str) -> None:
    subprocess.run([BUSYBOX, *words], check=True)


def prepare() -> None:
    for kind, path in MOUNTS:
        pathlib.Path(path).mkdir(exist_ok=True)
        busybox("mount", "-t", kind, kind, path)
    for module in MODULES:
        busybox("insmod", f"/modules/{module}.ko")
    busybox("ip", "link", "set", "lo", "up")
    interface = next(path.name for path in pathlib.Path("/sys/class/net").iterdir() if path.name != "lo")
    busybox("ip", "addr", "add", "10.0.2.15/24", "dev", interface)
    busybox("ip", "link", "set", interface, "up")
    busybox("--install", "-s", "/usr/local/bin")
    os.environ.update(ENVIRONMENT)
    subprocess.run(["/usr/lib/systemd/systemd-udevd", "--daemon"], check=True)


def run(order: dict[str, Any]) -> dict[str, Any]:
    try:
        ended = subprocess.run(order["command"], capture_output=True, timeout=order["seconds"], check=False)
    except subprocess.TimeoutExpired as late:
        return answer(-1, late.stdout or b"", b"it did not end in time")
    except OSError as error:
        return answer(-1, b"", str(error).encode())
    return answer(ended.returncode, ended.stdout, ended.stderr)


def answer(code: int, out: bytes, err: bytes) -> dict[str, Any]:
    return {"rc": code, "out": out.decode(errors="replace"), "err": err.decode(errors="replace")}


def until(order: dict[str, Any]) -> dict[str, Any]:
    """Nothing tells when a program would say something else, so it is asked again."""
    deadline = time.monotonic() + order["seconds"]
    while True:
        said = run(order)
        found = order["text"] in said["out"] + said["err"]
        if found is not order["absent"] or time.monotonic() > deadline:
            return {**said, "met": found is not order["absent"]}
        time.sleep(PAUSE)


def start(order: dict[str, Any]) -> dict[str, Any]:
    with pathlib.Path(f"/run/{order['name']}.log").open("ab") as log:
        started[order["name"]] = process = subprocess.Popen(
            order["command"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    return {"pid": process.pid}


def send_signal(order: dict[str, Any]) -> dict[str, Any]:
    process = started.pop(order["name"])
    if order["number"]:
        process.send_signal(order["number"])
    try:
        return {"rc": process.wait(order["seconds"])}
    except subprocess.TimeoutExpired:
        process.kill()
        return {"rc": None}


DO = {"run": run, "until": until, "start": start, "signal": send_signal}


def serve(port: int) -> None:
    with socket.create_connection((HOST, port)) as connection, connection.makefile("rw", encoding="utf-8") as lines:
        lines.write(json.dumps({"uptime": time.monotonic(), "python": sys.version}) + "\n")
        lines.flush()
        for line in lines:
            order = json.loads(line)
            lines.write(json.dumps(DO[order["do"]](order)) + "\n")
            lines.flush()


def main() -> None:
    try:
        prepare()
        port = re.search(r"control=(\d+)", pathlib.Path("/proc/cmdline").read_text())
        assert port is not None
        serve(int(port[1]))
    finally:
        subprocess.run([BUSYBOX, "poweroff", "-f"], check=False)
        time.sleep(POWER_OFF_SECONDS)  # the kernel panics if its first process ends before


if __name__ == "__main__":
    main()
