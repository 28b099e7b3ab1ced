"""Whether a person agrees to what is written: asked on a terminal alone."""

import sys

import click

from demail_hw.cli.exit_codes import ExitCode
from demail_hw.pin_sources import PROMPT

__all__ = ["ask", "is_typed", "need_somebody"]


def need_somebody(*, yes: bool) -> None:
    """``click.UsageError`` where nobody said yes before and nobody can be asked."""
    if not yes and not _on_a_terminal():
        raise click.UsageError("there is no terminal to ask at: say --yes, or see with --dry-run what it would do")


def ask(question: str, *, yes: bool) -> None:
    """Ask, unless yes was said before. If the answer is no the command ends: ``click.exceptions.Exit``."""
    if not yes and not click.confirm(question, err=True):
        click.echo("Nothing was done.", err=True)
        raise click.exceptions.Exit(ExitCode.DECLINED)


def is_typed(pin: str) -> bool:
    """Whether this PIN source is a person at the terminal."""
    return pin == PROMPT


def _on_a_terminal() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))
