"""All benchmarks, one report. It fails if a count is wrong; a time that misses its target is only said."""

import sys

from benchmarks import floor, kernel_guest, signing, tls, wire_delay
from benchmarks.instructions import count_instructions
from benchmarks.peer import one_cpu, running_peer
from benchmarks.report import machine, verdicts


def main() -> int:
    """Run, print, judge."""
    print(machine(), flush=True)
    with one_cpu(), running_peer() as peer:
        measured = signing.measure(peer)
        instructions = count_instructions(peer)
    _show(signing.report(measured, instructions), floor.report(measured.times, placed="both on one CPU"))
    with running_peer() as peer:
        _show(floor.report(signing.measure(peer).times, placed="where the scheduler puts them"))
    with running_peer() as peer:
        delayed, reconnected = wire_delay.measure(peer), wire_delay.reconnect(peer)
    _show(wire_delay.report(delayed, reconnected))
    _show(kernel_guest.report(kernel_guest.measure(wire_delay.ROUND_TRIPS)))
    handshakes = tls.measure()
    _show(tls.report(handshakes))
    targets = [
        *signing.count_targets(measured),
        *floor.targets(measured.times),
        *wire_delay.targets(delayed, reconnected),
        *tls.targets(handshakes),
    ]
    _show(verdicts("Targets", targets))
    wrong = [*signing.wrong_counts(measured), *wire_delay.wrong_counts(delayed, reconnected)]
    for line in wrong:
        print(f"WRONG COUNT: {line}")
    return 1 if wrong else 0


def _show(*tables: str) -> None:
    for lines in tables:
        print("", lines, sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
