"""`demail-hw setup`: what is there, what is shown, and what is written where."""

import json
import pathlib
import stat

import pytest

from demail_hw.cli.exit_codes import ExitCode
from demail_hw.cli.main import main
from demail_hw_drivers.system_pieces import PIECES, PROGRAM, SystemPiece, piece

NAMES = [each.name for each in PIECES]
UNITS = [each for each in PIECES if each.source.endswith(".service")]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = 0
    try:
        main(["setup", *words])
    except SystemExit as ended:
        code = int(ended.code or 0)
    told = capsys.readouterr()
    return code, told.out, told.err


def test_the_table_is_sorted_and_every_file_of_the_folder_is_in_it() -> None:
    import demail_hw_drivers

    folder = pathlib.Path(demail_hw_drivers.__file__).parent / "system"
    assert sorted(NAMES) == NAMES
    assert {each.name for each in folder.iterdir()} == {each.source for each in PIECES}
    assert {need for each in PIECES for need in each.needs} <= set(NAMES)


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "list")
    assert code == 0
    assert all(str(each.target) in out for each in PIECES)
    _, out, _ = run(capsys, "list", "--json")
    assert [each["name"] for each in json.loads(out)["pieces"]] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_show(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "show", name, "--program", "/opt/demail/bin/demail-hw")
    assert (code, out) == (0, piece(name).text("/opt/demail/bin/demail-hw"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_path_of_the_program_is_put_in(unit: SystemPiece) -> None:
    text = unit.text("/opt/demail/bin/demail-hw")
    assert "ExecStart=/opt/demail/bin/demail-hw " in text
    assert PROGRAM not in text


def test_install_writes_what_show_prints(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "install", *NAMES, "--root", str(tmp_path), "--program", "/opt/demail-hw")
    assert code == 0
    for each in PIECES:
        written = tmp_path / each.target.relative_to("/")
        assert written.read_text() == each.text("/opt/demail-hw")
        assert stat.S_IMODE(written.stat().st_mode) == 0o644
        assert each.then in out
    assert "Needed too" not in out


def test_install_works_under_a_strict_umask(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    import os

    before = os.umask(0o077)
    try:
        run(capsys, "install", "polkit", "--root", str(tmp_path))
    finally:
        os.umask(before)
    written = tmp_path / piece("polkit").target.relative_to("/")
    assert stat.S_IMODE(written.stat().st_mode) == 0o644
    assert stat.S_IMODE(written.parent.stat().st_mode) == 0o755


def test_what_is_needed_too_is_said(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "install", "serve", "--root", str(tmp_path))
    assert f"Needed too: demail-hw setup install --root {tmp_path} readers user" in out
    assert "Then on that system: systemctl daemon-reload" in out
    run(capsys, "install", "readers", "user", "--root", str(tmp_path))
    _, out, _ = run(capsys, "install", "serve", "--root", str(tmp_path))
    assert "Needed too" not in out


@pytest.mark.parametrize(("program", "hidden"), [("/opt/demail-hw", False), ("/root/venv/bin/demail-hw", True)])
def test_a_program_that_services_cannot_see(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    program: str,
    hidden: bool,
) -> None:
    run(capsys, "install", "serve", "user", "--root", str(tmp_path), "--program", program)
    told = f"demail-hw-serve.service names {program}, which services cannot see"
    assert [told in each for each in caplog.messages] == [True] * hidden


def test_a_dry_run_writes_nothing(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "install", "vhci", "--root", str(tmp_path), "--dry-run")
    assert code == 0
    assert "would be written" in out
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_replaced_only_after_a_yes(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / piece("vhci").target.relative_to("/")
    written.parent.mkdir(parents=True)
    written.write_text("mine\n")
    code, _, err = run(capsys, "install", "vhci", "--root", str(tmp_path))
    assert (code, written.read_text()) == (ExitCode.USAGE, "mine\n")
    assert "--yes" in err
    assert str(written) in err
    code, out, _ = run(capsys, "install", "vhci", "--root", str(tmp_path), "--yes", "--json")
    (state,) = json.loads(out)["installed"]
    assert (code, state["state"], written.read_text()) == (0, "replaced", piece("vhci").text())
    _, out, _ = run(capsys, "install", "vhci", "--root", str(tmp_path))
    assert "unchanged" in out


@pytest.mark.parametrize("path", ["demail-hw", "/opt/my programs/demail-hw", "/opt/100%/demail-hw", "/opt/\n/x"])
def test_a_path_that_a_unit_cannot_name_is_refused(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "show", "serve", "--program", path)
    assert (code, out) == (ExitCode.USAGE, "")


def test_there_is_no_such_piece(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "show", "nothing")
    assert code == ExitCode.USAGE
    assert "pcscd-stay" in err


def test_where_it_cannot_be_written(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "etc").write_text("a file where a folder belongs")
    code, _, err = run(capsys, "install", "vhci", "--root", str(tmp_path))
    assert code == ExitCode.USAGE
    assert "cannot be used" in err
