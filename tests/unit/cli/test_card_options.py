"""The options that say what card is in a simulated reader."""

import importlib.resources
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from demail_hw.cli.card_options import CardOptions, card_options, open_simulated_card
from demail_hw.cli.exit_codes import ExitCode
from demail_hw.cli.main import main
from demail_hw.errors import ConfigurationError
from demail_hw_simulators.card.card import SimulatedTcosCard
from demail_hw_simulators.card.file_system import DedicatedFile
from demail_hw_simulators.card.personalities import NETKEY3
from demail_hw_simulators.card.timing import TimedCard

NO_ASSIGNMENTS = (
    "80", "80=", "=FILE", "8=FILE", "0080=FILE", "zz=FILE", "0x80=FILE", "+8=FILE", "\u0668\u0660=FILE",
    "nks:=FILE", ":80=FILE", "nks:8=FILE", "nks:80", "nks=FILE:80",
)  # fmt: skip


@click.command
@click.option("--more")
@card_options
def show(card: CardOptions, more: str | None) -> None:
    click.echo(repr((card, more)))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", CardOptions("netkey3")),
        ("--personality idkey --timing 7", CardOptions("idkey", timing=7)),
        ("--timing 0", CardOptions("netkey3", timing=0)),
        (
            "--key 80=a --certificate 80=b --key 8c=c=d",
            CardOptions("netkey3", keys={0x80: "a", 0x8C: "c=d"}, certificates={0x80: "b"}),
        ),
        (
            "--key nks:80=a:b --key sigg:80=c --key my:own:8C=d",
            CardOptions("netkey3", keys={("nks", 0x80): "a:b", ("sigg", 0x80): "c", ("my:own", 0x8C): "d"}),
        ),
    ],
)
def test_what_a_command_gets(arguments: str, expected: CardOptions) -> None:
    done = CliRunner().invoke(show, [*arguments.split(), "--more", "x"])
    assert done.output == f"{(expected, 'x')!r}\n"


def test_options_of_the_command_are_all_there() -> None:
    assert {parameter.opts[0] for parameter in show.params} == {
        "--personality", "--key", "--certificate", "--timing", "--more",
    }  # fmt: skip


@pytest.fixture
def own_key(tmp_path: Path) -> tuple[rsa.RSAPrivateKey, Path]:
    key = rsa.generate_private_key(65537, 2048)
    path = tmp_path / "key.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key, path


def test_an_own_key_is_on_the_card(own_key: tuple[rsa.RSAPrivateKey, Path]) -> None:
    key, path = own_key
    card = open_simulated_card(CardOptions("netkey3", keys={0x80: str(path)}))
    assert isinstance(card, SimulatedTcosCard)
    nks = card.file_system.root.files[0xDF02]
    assert isinstance(nks, DedicatedFile)
    assert nks.keys[0x80].public_key == key.public_key()


def test_a_card_takes_time_only_if_it_is_told_to() -> None:
    assert isinstance(open_simulated_card(CardOptions("netkey3", timing=0)), TimedCard)
    card = open_simulated_card(CardOptions("netkey3"))
    assert isinstance(card, SimulatedTcosCard)
    assert card.power_on() == NETKEY3.atr


def test_a_personality_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('title = "mine"\nextends = "netkey3"\n[card]\nassumed.iccsn = "89490179990000000001"\n')
    card = open_simulated_card(CardOptions(str(path)))
    card.power_on()
    card.transmit(bytes.fromhex("00A4080C 02 2F02"))
    assert card.transmit(bytes.fromhex("00B000000C")).hex() == "5a0a894901799900000000019000"


def without_timing(folder: Path) -> Path:
    """A whole personality, but for the last table."""
    text = (importlib.resources.files("demail_hw_simulators.card") / "personalities" / "netkey3.toml").read_text()
    path = folder / "timeless.toml"
    path.write_text(text[: text.index("[timing]")])
    return path


def test_a_personality_that_knows_no_times(tmp_path: Path) -> None:
    path = without_timing(tmp_path)
    open_simulated_card(CardOptions(str(path)))
    with pytest.raises(ConfigurationError, match="does not say how long"):
        open_simulated_card(CardOptions(str(path), timing=1))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("--personality nope", ExitCode.CONFIGURATION, "no simulated card 'nope'"),
        ("--personality FOLDER/none.toml", ExitCode.CONFIGURATION, "cannot be read"),
        *((f"--key {wrong}", ExitCode.USAGE, "is not REF=FILE") for wrong in NO_ASSIGNMENTS),
        ("--certificate zz=FOLDER/key.pem", ExitCode.USAGE, "is not REF=FILE"),
        ("--key 80=FOLDER/key.pem --key 80=FOLDER/key.pem", ExitCode.USAGE, "twice"),
        ("--key 80=FOLDER/none.pem", ExitCode.CONFIGURATION, "none.pem"),
        ("--key 99=FOLDER/key.pem", ExitCode.CONFIGURATION, "no key 99"),
        ("--key sigg:80=FOLDER/key.pem", ExitCode.CONFIGURATION, "no key sigg:80"),
        ("--key 80=FOLDER/key.pem --personality netkey2", ExitCode.CONFIGURATION, "several keys 80"),
        ("--key 80=FOLDER/key.pem --key nks:80=FOLDER/key.pem", ExitCode.CONFIGURATION, "nks:80 is given twice"),
        ("--certificate 80=FOLDER/key.pem", ExitCode.CONFIGURATION, "holds no certificate"),
        ("--timing soon", ExitCode.USAGE, "soon"),
    ],
)
@pytest.mark.usefixtures("own_key")
def test_what_is_wrong_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, code: ExitCode, said: str
) -> None:
    words = arguments.replace("FOLDER", str(tmp_path)).split()
    with pytest.raises(SystemExit) as stopped:
        main(["simulate", "usb-server", "--listen", "127.0.0.1:0", *words, "--json"])
    assert stopped.value.code == code
    error = json.loads(capsys.readouterr().err)["error"]
    assert said in error["message"]
    assert code is ExitCode.USAGE or error["remedy"]
