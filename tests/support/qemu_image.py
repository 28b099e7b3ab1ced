"""What a virtual machine boots: Debian's kernel as ELF, and Debian's packages in an initramfs, as they are.

The packages are fetched as if nothing were installed, into a folder that is kept; nothing is installed here.
"""

import hashlib
import lzma
import pathlib
import re
import stat
import struct
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

__all__ = [
    "GuestImage",
    "Node",
    "PackagesMissing",
    "archive",
    "build",
    "directory",
    "file",
    "link",
    "private_file",
    "source_tree",
]

PACKAGES: Final = (
    "busybox-static",
    "kmod",
    "libccid",
    "linux-image-amd64",  # not its cloud variant, which has no USB/IP
    "opensc",
    "pcscd",
    "python3",
    "udev",
    "usbip",
)
# What only installs packages, or is a language that nobody here speaks.
UNUSED: Final = ("adduser", "coreutils", "cpio", "debconf", "dpkg", "initramfs", "klibc", "libperl", "perl", "passwd")
MODULES: Final = (
    "drivers/net/ethernet/intel/e1000/e1000.ko",
    "drivers/usb/common/usb-common.ko",
    "drivers/usb/core/usbcore.ko",
    "drivers/usb/usbip/usbip-core.ko",
    "drivers/usb/usbip/vhci-hcd.ko",
)
KERNEL_PACKAGE: Final = "linux-image-"
UNREAD: Final = (
    *(f"usr/share/{name}/" for name in ("bug", "doc", "lintian", "locale", "man")),
    "usr/lib/udev/hwdb",
)
MERGED: Final = ("bin", "lib", "lib32", "lib64", "sbin")
# What apt says that it would do.
INSTALLED: Final = re.compile(r"Inst (\S+) \((\S+) .*\[(\S+)\]\)")
FETCH_SECONDS: Final = 600
# Offsets in the boot header (Documentation/x86/boot.rst).
SETUP_SECTORS, PAYLOAD_OFFSET, PAYLOAD_LENGTH, SECTOR = 0x1F1, 0x248, 0x24C, 512
ALIGNMENT: Final = 4


class Node(NamedTuple):
    """A file, folder or link of the initramfs; of a link ``content`` is where it leads."""

    mode: int
    content: bytes = b""


class PackagesMissing(Exception):
    """apt cannot get them: no network, or no Debian."""


class GuestImage(NamedTuple):
    """Two files for qemu; the initramfs may be followed by more archives."""

    kernel: pathlib.Path
    initramfs: pathlib.Path


def file(content: bytes, *, executable: bool = False) -> Node:
    return Node(stat.S_IFREG | (0o755 if executable else 0o644), content)


def private_file(content: bytes) -> Node:
    return Node(stat.S_IFREG | 0o600, content)


def directory() -> Node:
    return Node(stat.S_IFDIR | 0o755)


def link(target: str) -> Node:
    return Node(stat.S_IFLNK | 0o777, target.encode())


def build(cache: pathlib.Path) -> GuestImage:
    """Fetch what is missing and put it together, or take what was put together before.

    Errors: :class:`PackagesMissing`.
    """
    debs = fetch(cache / "packages")
    key = hashlib.sha256(repr((sorted(path.name for path in debs), pathlib.Path(__file__).read_bytes())).encode())
    image = GuestImage(cache / f"vmlinux-{key.hexdigest()[:16]}", cache / f"initramfs-{key.hexdigest()[:16]}")
    if all(path.exists() for path in image):
        return image
    for old in (*cache.glob("vmlinux-*"), *cache.glob("initramfs-*")):
        old.unlink()
    tree: dict[str, Node] = {name: link(f"usr/{name}") for name in MERGED}
    for deb in debs:
        if deb.name.startswith(KERNEL_PACKAGE):
            boot, modules = kernel_package(deb)
            tree.update(modules)
            if boot:
                write(image.kernel, vmlinux(boot))
        elif not deb.name.startswith(UNUSED):
            tree.update(unpack(deb))
    write(image.initramfs, archive(tree))
    return image


def write(path: pathlib.Path, content: bytes) -> None:
    """Whole or not at all: another run of the tests may look."""
    draft = path.with_name(f".{path.name}")
    draft.write_bytes(content)
    draft.replace(path)


def fetch(folder: pathlib.Path) -> list[pathlib.Path]:
    """The packages and all that they depend on."""
    (folder / "partial").mkdir(parents=True, exist_ok=True)
    nothing_installed = folder / "status"
    nothing_installed.touch()
    options = {
        "Dir::State::status": nothing_installed,
        "Dir::Cache::archives": folder,
        "Debug::NoLocking": 1,
        "APT::Install-Recommends": 0,
        "APT::Sandbox::User": "root",  # it owns none of our folders otherwise
    }
    settings = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    command = ["apt-get", "-qq", "--yes", *settings, "install", *PACKAGES]
    apt([*command, "--download-only"])
    planned = map(INSTALLED.match, apt([*command, "--simulate"]).splitlines())
    debs = {folder / file_name(*match.groups()) for match in planned if match}
    for outdated in set(folder.glob("*.deb")) - debs:
        outdated.unlink()
    return sorted(debs)


def file_name(package: str, version: str, architecture: str) -> str:
    return f"{package}_{version.replace(':', '%3a')}_{architecture}.deb"


def apt(command: list[str]) -> str:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackagesMissing(str(error)) from error
    if ended.returncode != 0:
        raise PackagesMissing(ended.stderr.strip())
    return ended.stdout


def members(deb: pathlib.Path) -> Iterator[tuple[str, tarfile.TarInfo, tarfile.TarFile]]:
    """The members of a package, by their path without the leading ``./``."""
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
            for member in tar:
                yield member.name.removeprefix("./"), member, tar
        process.stdout.read()
    assert process.returncode == 0


def unpack(deb: pathlib.Path) -> dict[str, Node]:
    tree: dict[str, Node] = {}
    for name, member, tar in members(deb):
        path = merged(name)
        if path in ("", ".", *MERGED, "usr") or path.startswith(UNREAD):
            continue
        if member.isdir():
            tree[path] = directory()
        elif member.issym():
            tree[path] = link(member.linkname)
        elif member.islnk():
            tree[path] = tree[merged(member.linkname.removeprefix("./"))]
        else:
            tree[path] = Node(stat.S_IFREG | member.mode, read(tar, member))
    return tree


def read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(member)
    assert content is not None
    return content.read()


def merged(path: str) -> str:
    """Where a path lies since /bin and /lib are links into /usr."""
    return f"usr/{path}" if path.split("/", 1)[0] in MERGED else path


def kernel_package(deb: pathlib.Path) -> tuple[bytes, dict[str, Node]]:
    """The boot file, and the few modules that are needed, by their names alone; neither is in a package of a name
    without a version."""
    boot, modules = b"", {}
    for name, member, tar in members(deb):
        if name.startswith("boot/vmlinuz"):
            boot = read(tar, member)
        elif name.endswith(MODULES):
            modules[f"modules/{pathlib.PurePath(name).name}"] = file(read(tar, member))
    return boot, modules


def vmlinux(boot: bytes) -> bytes:
    """The ELF file inside a bzImage: qemu starts it without firmware (PVH), and nobody unpacks it slowly."""
    offset, length = struct.unpack_from("<II", boot, PAYLOAD_OFFSET)
    start = (boot[SETUP_SECTORS] + 1) * SECTOR + offset
    return lzma.LZMADecompressor().decompress(boot[start : start + length])


def source_tree(folder: pathlib.Path, at: str, *, leave_out: Iterable[str] = ()) -> dict[str, Node]:
    """The Python files of a package."""
    paths = (path for path in sorted(folder.rglob("*.py")) if str(path.relative_to(folder)) not in leave_out)
    return {f"{at}/{path.relative_to(folder)}": file(path.read_bytes()) for path in paths}


def archive(tree: Mapping[str, Node]) -> bytes:
    """A cpio archive of the format "newc" (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    folders = {str(parent) for path in tree for parent in pathlib.PurePath(path).parents} - {"."}
    whole = {**{path: directory() for path in folders}, **tree}
    entries = [entry(path, whole[path], number) for number, path in enumerate(sorted(whole), start=1)]
    return b"".join((*entries, entry("TRAILER!!!", Node(0), 0)))


def entry(path: str, node: Node, number: int) -> bytes:
    name = path.encode() + b"\0"
    fields = (number, node.mode, 0, 0, 1, 0, len(node.content), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return padded(head) + padded(node.content)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)
