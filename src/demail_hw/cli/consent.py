"""Whether a person agrees to what is written: asked on a terminal alone."""

import sys

import click

from demail_hw.cli.exit_codes import ExitCode
from demail_hw.cli.output import Report, declined_report
from demail_hw.cli.progress import asking
from demail_hw.pin_sources import PROMPT

__all__ = ["Declined", "ask", "is_typed", "need_somebody"]


class Declined(click.exceptions.Exit):
    """A question was answered with no."""


def need_somebody(*, yes: bool, look: str = "see with --dry-run what it would do", why: str = "") -> None:
    """``click.UsageError`` where nobody said yes before and nobody can be asked. ``look``: what to do instead;
    ``why``: what is to be asked about."""
    if not yes and not _on_a_terminal():
        about = f"{why}; " if why else ""
        raise click.UsageError(f"{about}there is no terminal to ask at: say --yes, or {look}")


def ask(question: str, *, yes: bool) -> None:
    """Ask, unless yes was said before. If the answer is no the command ends: :class:`Declined`, which was told."""
    if not yes and not _agrees(question):
        declined = Declined(ExitCode.DECLINED)
        click.echo(declined_report(declined, declined.exit_code, as_json=_in_json()), err=True)
        raise declined


def _agrees(question: str) -> bool:
    with asking():
        return click.confirm(question, err=True)


def is_typed(pin: str) -> bool:
    """Whether this PIN source is a person at the terminal."""
    return pin == PROMPT


def _on_a_terminal() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def _in_json() -> bool:
    report = click.get_current_context().params.get("report")
    return isinstance(report, Report) and report.as_json
