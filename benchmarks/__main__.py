"""All benchmarks, one report. It fails if a count is wrong; a time that misses its target is only said."""

import sys

from benchmarks import floor, signing, tls
from benchmarks.instructions import count_instructions
from benchmarks.peer import one_cpu, running_peer
from benchmarks.report import machine, verdicts


def main() -> int:
    """Run, print, judge."""
    print(machine(), flush=True)
    one_cpu()
    with running_peer() as peer:
        measured = signing.measure(peer)
        instructions = count_instructions(peer)
    print("", signing.report(measured, instructions), "", floor.report(measured.times), sep="\n", flush=True)
    handshakes = tls.measure()
    print("", tls.report(handshakes), "", sep="\n")
    targets = [*signing.count_targets(measured), *floor.targets(measured.times), *tls.targets(handshakes)]
    print(verdicts("Targets", targets))
    wrong = signing.wrong_counts(measured)
    for line in wrong:
        print(f"WRONG COUNT: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
