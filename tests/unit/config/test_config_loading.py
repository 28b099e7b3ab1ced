"""What a configuration says, and what is told of a wrong one."""

import pathlib
import pickle
import subprocess
import sys

import pytest
from pydantic import TypeAdapter

from demail_hw.address import Address
from demail_hw.config import (
    BindingConfig,
    BindingMode,
    CardConfig,
    Configuration,
    ExportConfig,
    ServerConfig,
    ServerTlsConfig,
    TlsConfig,
    configuration_schema,
    find_configuration,
    load_configuration,
    parse_configuration,
    problems_in,
    read_configuration,
)
from demail_hw.errors import ConfigurationError
from demail_hw.usbip.access import AccessRule, RuleKind
from demail_hw.usbip.binding import RetryLimits

WHOLE = """
[bindings.office]
host = "usb-server.example"
port = 3241
serial = "53692013000000"
mode = "kernel"
enabled = false
tls = { certificate = "me.pem", key = "/keys/me.key", ca = "ca.pem" }
retry = { first = 1, longest = 30.5, attempts = 7 }

[server]
host = "0.0.0.0"
connections_per_address = 48
tls = { certificate = "s.pem", key = "credential:s.key", ca = "ca.pem", crl = ["a.crl", "credential:b.crl"] }

[[server.exports]]
device = "sim:netkey3"
allow = ["subject:CN=gateway"]

[cards.mail]
reader = "binding:office?reader=1"
iccsn = "8949 0173510080407136"
pin = "credential:demail-pin"
"""


def test_a_whole_one() -> None:
    tls = TlsConfig(pathlib.Path("/etc/x/me.pem"), pathlib.Path("/keys/me.key"), pathlib.Path("/etc/x/ca.pem"))
    served = ServerTlsConfig(
        pathlib.Path("/etc/x/s.pem"),
        pathlib.Path("credential:s.key"),
        pathlib.Path("/etc/x/ca.pem"),
        (pathlib.Path("/etc/x/a.crl"), pathlib.Path("credential:b.crl")),
    )
    limits = RetryLimits(first=1, longest=30.5, attempts=7)
    assert parse_configuration(WHOLE, file=pathlib.Path("/etc/x/config.toml")) == Configuration(
        bindings={
            "office": BindingConfig(
                "usb-server.example",
                3241,
                serial="53692013000000",
                mode=BindingMode.KERNEL,
                enabled=False,
                tls=tls,
                retry=limits,
            )
        },
        server=ServerConfig(
            "0.0.0.0",
            tls=served,
            connections_per_address=48,
            exports=(ExportConfig("sim:netkey3", ("subject:CN=gateway",)),),
        ),
        cards={"mail": CardConfig("binding:office?reader=1", "8949 0173510080407136", "credential:demail-pin")},
    )


def test_nothing_is_a_configuration_too() -> None:
    assert parse_configuration("") == Configuration()


@pytest.mark.parametrize(
    ("device", "address"),
    [
        ("", "usbip://h/"),
        ('serial = "S 1"', "usbip://h/serial=S%201"),
        ('vid_pid = "04e6:5710"\nport = 99', "usbip://h:99/04e6:5710"),
        ('bus_id = "1-1.4"', "usbip://h/1-1.4"),
        ("interface = 0", "usbip://h/?interface=0"),
        ('capture = "/tmp/a.pcapng"', "usbip://h/?capture=/tmp/a.pcapng"),
        (
            'tls = { certificate = "/c", key = "/k", ca = "/a" }',
            "usbips://h/?ca=/a&cert=/c&key=/k",
        ),
    ],
)
def test_a_binding_is_an_address(device: str, address: str) -> None:
    binding = parse_configuration(f'[bindings.a]\nhost = "h"\n{device}').binding("a")
    assert str(binding.address) == address
    assert Address.parse(address) == binding.address


@pytest.mark.parametrize(
    "host", ["h", "usb-server.example", "a_b", "10.0.0.1", "::1", "fe80::1%eth0", "b\u00fcro.example"]
)
def test_the_host_of_a_binding(host: str) -> None:
    assert BindingConfig(host).address.host == host


def test_remedies_of_a_binding_can_name_its_keys() -> None:
    binding = parse_configuration(WHOLE).binding("office")
    assert binding.address_of("office") == binding.address
    assert binding.address_of("office").tls_table == "bindings.office.tls"
    assert BindingConfig("h").address_of("office").tls_table == ""


def test_files_begin_at_the_configurations_folder() -> None:
    text = '[tls]\ncertificate = "c"\nkey = "/k"\nca = "a"\n[server]\naudit = "log/audit"\ncapture = "c"\n'
    text += BINDING + 'capture = "d"'
    configuration = parse_configuration(text, file=pathlib.Path("/etc/x/config.toml"))
    assert configuration.tls == TlsConfig(pathlib.Path("/etc/x/c"), pathlib.Path("/k"), pathlib.Path("/etc/x/a"))
    assert configuration.server == ServerConfig(
        audit=pathlib.Path("/etc/x/log/audit"), capture=pathlib.Path("/etc/x/c")
    )
    assert configuration.binding("a").capture == pathlib.Path("/etc/x/d")


def test_the_rules_of_an_export_are_those_of_the_server() -> None:
    (export,) = (parse_configuration(WHOLE).server or ServerConfig()).exports
    assert export.rules == (AccessRule(RuleKind.SUBJECT, "CN=gateway"),)


def test_who_uses_a_value_blames_its_key(tmp_path: pathlib.Path) -> None:
    file = written(tmp_path / "config.toml")
    loaded = read_configuration(file)
    assert loaded.configuration == load_configuration(file)
    with pytest.raises(ConfigurationError) as caught, loaded.blamed("bindings", "a", "host"):
        raise ConfigurationError("There is no such thing.", remedy="Mend it.")
    assert caught.value.message == f"{file}, line 2: bindings.a.host: There is no such thing."
    assert (caught.value.line, caught.value.remedy) == (2, "Mend it.")


def test_a_card_demands_itself() -> None:
    card = parse_configuration(WHOLE).card("mail")
    assert (card.address.card, card.address.reader) == ("89490173510080407136", "1")
    assert CardConfig("sim:netkey3").address == Address.parse("sim:netkey3")


BINDING = '[bindings.a]\nhost = "h"\n'


@pytest.mark.parametrize(
    ("text", "line", "message", "remedy"),
    [
        ("a = ", 1, "this is no TOML", "toml.io"),
        ("x = 1\nx = 2", 2, "this is no TOML", "toml.io"),
        ("\n[binding.a]", 2, "binding: there is no such key", "Did you mean bindings?"),
        (BINDING + 'prt = "1"', 3, "bindings.a.prt: there is no such key", "Did you mean port?"),
        (BINDING + "retry.busi = 1", 3, "bindings.a.retry.busi: there is no such key", "Did you mean busy?"),
        (
            BINDING + "qqq = 1",
            3,
            "bindings.a.qqq: there is no such key",
            "Known there: bus_id, capture, enabled, host",
        ),
        ("[bindings.a]\nport = 1", 1, "bindings.a.host: it is missing", ""),
        (BINDING + 'port = "3240"', 3, "bindings.a.port: must be a whole number, without quotes", ""),
        (BINDING + "port = 70000", 3, "bindings.a.port: must be a number from 1 to 65535", ""),
        (BINDING + "interface = 256", 3, "bindings.a.interface: must be a number from 0 to 255", ""),
        (
            BINDING + 'mode = "kernel"\ninterface = 1',
            4,
            "bindings.a.interface: the kernel has the whole",
            "Leave it out",
        ),
        (BINDING + "port = true", 3, "bindings.a.port: must be a whole number, without quotes", ""),
        (BINDING + "enabled = 1", 3, "bindings.a.enabled: must be true or false", ""),
        (BINDING + 'mode = "root"', 3, "bindings.a.mode: must be 'user' or 'kernel'", ""),
        (BINDING + "serial = 2026-01-01", 3, "bindings.a.serial: must be a text in quotes", ""),
        (BINDING + 'serial = ""', 3, "bindings.a.serial: it is empty", ""),
        (BINDING + 'vid_pid = "4e6"', 3, "bindings.a.vid_pid: must be four hexadecimal digits", ""),
        (BINDING + 'bus_id = "a"', 3, "bindings.a.bus_id: must be written as in 1-1", ""),
        (BINDING + 'serial = "1"\nbus_id = "1-1"', 4, "bindings.a.bus_id: the device is named by serial", "Keep one"),
        (BINDING + "retry.first = -1", 3, "bindings.a.retry: first must be more than 0", ""),
        (
            BINDING + 'tls = { certificate = "c", key = "k", ca = "a", crl = [] }',
            3,
            "bindings.a.tls.crl: there is no such key",
            "Known there: ca, certificate, key",
        ),
        (BINDING + "tls = 3", 3, "bindings.a.tls: must be a table", ""),
        (BINDING + 'tls.certificate = "c"\ntls.key = "k"', 3, "bindings.a.tls.ca: it is missing", ""),
        ('[bindings."../x"]\nhost = "h"', 1, "bindings: '../x' is no name", "Use letters"),
        ('[bindings.a]\nhost = "a/b"', 2, "bindings.a.host: must be the name or the address", ""),
        ('[bindings.a]\nhost = "a..b"', 2, "bindings.a.host: must be the name or the address", ""),
        ('[bindings.a]\nhost = "h:3240"', 2, "bindings.a.host: must be the name or the address", "a key of its own"),
        ('[bindings.a]\nhost = "[::1]"', 2, "bindings.a.host: must be the name or the address", ""),
        ('[server]\nhost = "a\\u0000b"', 2, "server.host: must be the name or the address", ""),
        (BINDING + "retry.busy = nan", 3, "bindings.a.retry: every wait must be a finite number", ""),
        ("bindings = 3", 1, "bindings: must be a table", ""),
        ("[server]\nconnections = 0", 2, "server.connections: must be 1 or more", ""),
        ('[server]\nexports = "x"', 2, "server.exports: must be a list in brackets", ""),
        ('[server]\n[[server.exports]]\ndevice = "d"', 3, "server.exports[0].device: 'd' is no reader address", ""),
        (
            '[[server.exports]]\ndevice = "sim:a"\n[[server.exports]]\ndevice = "sim:b"\nalow = []',
            5,
            "server.exports[1].alow: there is no such key",
            "Did you mean allow?",
        ),
        (
            '[server]\n[[server.exports]]\ndevice = "sim:a"\nallow = ["any"]',
            2,
            "server.exports: allow names certificates",
            "[server.tls]",
        ),
        (
            '[server]\n[[server.exports]]\ndevice = "sim:a"\nallow = ["any", "CN=x"]',
            4,
            "server.exports[0].allow: 'CN=x' is no rule: write sha256:..., subject:...",
            "",
        ),
        ('[cards.a]\nreader = "sim:a"\niccsn = "xyz"', 3, "cards.a.iccsn: must be the serial number of a card", ""),
        ('[cards.a]\nreader = "sim:a?card=12"\niccsn = "34"', 3, "cards.a.iccsn: the reader's address demands", ""),
        ('[cards.a]\nreader = "sim:a"\npin = "file:pin"', 3, "cards.a.pin: the path of a PIN file must be", ""),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, line: int, message: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_configuration(text, file=pathlib.Path("/etc/x.toml"))

    error = caught.value
    assert (error.file, error.line) == ("/etc/x.toml", line)
    assert error.message.startswith(f"/etc/x.toml, line {line}: {message}")
    assert remedy in error.remedy
    assert error.remedy
    assert pickle.loads(pickle.dumps(error)).line == line


def test_every_problem_is_found_in_the_order_of_the_lines() -> None:
    text = '[cards.a]\npin = 1\n[bindings.b]\nport = "x"\n'
    assert [(problem.line, problem.key) for problem in problems_in(text)] == [
        (1, "cards.a.reader"),
        (2, "cards.a.pin"),
        (3, "bindings.b.host"),
        (4, "bindings.b.port"),
    ]
    with pytest.raises(ConfigurationError, match=r"and 3 more"):
        parse_configuration(text)


def test_many_unknown_keys_ask_for_the_schema_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []
    schema = TypeAdapter.json_schema
    monkeypatch.setattr(TypeAdapter, "json_schema", lambda self: (asked.append(None), schema(self))[1])
    assert len(problems_in("".join(f"k{number} = 1\n" for number in range(20)))) == 20
    assert len(asked) <= 1


@pytest.mark.parametrize("depth", [150, 300, 900])
@pytest.mark.parametrize("form", ["{dots} = 1", "[{dots}]", "a = {lists}"])
def test_what_is_nested_deep_is_a_problem_like_any_other(form: str, depth: int) -> None:
    text = form.format(dots="a" + ".a" * depth, lists="[" * depth + "]" * depth)
    with pytest.raises(ConfigurationError):
        parse_configuration(text)


@pytest.mark.parametrize("pin", ['"918273"', "918273", '"pin:918273"', '"file:918273"', '"918273', "[918273]"])
def test_a_pin_in_the_file_is_refused_and_never_shown(pin: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_configuration(f'[cards.a]\nreader = "sim:netkey3"\npin = {pin}')

    error: BaseException | None = caught.value
    assert caught.value.line == 3
    while error is not None:
        assert "918273" not in f"{error} {error!r} {error.args} {vars(error)}"
        error = error.__cause__ or error.__context__


def test_a_card_does_not_show_its_pin_source() -> None:
    assert "demail-pin" not in repr(parse_configuration(WHOLE))


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(ConfigurationError, match=r"no binding 'x'; it has office"):
        parse_configuration(WHOLE).binding("x")
    with pytest.raises(ConfigurationError, match=r"no card 'x'; it has none"):
        Configuration().card("x")


# --- Files -----------------------------------------------------------------------------------------------------


def written(path: pathlib.Path, text: str = BINDING) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    return path


def test_the_first_file_counts(tmp_path: pathlib.Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert load_configuration(environment={"XDG_CONFIG_HOME": str(tmp_path / "none")}) == Configuration()
    written(tmp_path / ".config/demail-hw/config.toml", '[bindings.home]\nhost = "h"')
    assert list(load_configuration(environment=home).bindings) == ["home"]
    written(tmp_path / "xdg/demail-hw/config.toml", '[bindings.xdg]\nhost = "h"')
    xdg = {**home, "XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    assert list(load_configuration(environment=xdg).bindings) == ["xdg"]
    named = written(tmp_path / "named.toml", '[bindings.named]\nhost = "h"')
    assert list(load_configuration(environment={**xdg, "DEMAIL_HW_CONFIG": str(named)}).bindings) == ["named"]
    assert list(load_configuration(named, environment=xdg).bindings) == ["named"]


def test_a_named_file_that_is_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigurationError, match="is not there") as caught:
        load_configuration(environment={"DEMAIL_HW_CONFIG": str(tmp_path / "none.toml")})
    assert caught.value.file == str(tmp_path / "none.toml")
    for name in (tmp_path / "none.toml", str(tmp_path / "none.toml")):
        with pytest.raises(ConfigurationError, match="is not there"):
            load_configuration(name)


def test_a_place_that_cannot_be_seen_is_not_passed_over(tmp_path: pathlib.Path) -> None:
    (tmp_path / ".config").symlink_to(".config")
    with pytest.raises(ConfigurationError, match=r"cannot be looked for in .*config/demail-hw: Too many") as caught:
        find_configuration({"HOME": str(tmp_path)})
    assert "--config" in caught.value.remedy


def test_a_file_that_everybody_may_write(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path / "config.toml")
    path.chmod(0o666)
    with pytest.raises(ConfigurationError, match="Everybody may write") as caught:
        load_configuration(path)
    assert caught.value.remedy == f"chmod o-w {path}"


def test_a_file_that_is_no_text_or_too_long(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path / "config.toml")
    path.write_bytes(b"# \xff")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        load_configuration(path)
    path.write_bytes(b"#" * ((1 << 16) + 1))
    with pytest.raises(ConfigurationError, match="longer than 64 KiB"):
        load_configuration(path)
    with pytest.raises(ConfigurationError, match="Is a directory"):
        load_configuration(tmp_path)


def test_the_schema_knows_every_table() -> None:
    schema = configuration_schema()
    assert sorted(schema["properties"]) == ["bindings", "cards", "server", "tls"]
    assert schema["additionalProperties"] is False
    assert all(table["additionalProperties"] is False for table in schema["$defs"].values() if "properties" in table)


def test_the_library_that_checks_is_imported_only_when_a_file_is_read() -> None:
    imports = "import sys, demail_hw, demail_hw.config, demail_hw.cli.main"
    code = f"{imports}; print([name for name in sys.modules if 'pydantic' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"
