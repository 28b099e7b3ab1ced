"""Traces: what went over the wire, with secrets masked, as values; recorded, written and read.

The text has a line ``> command`` and a line ``< data status`` for each exchange, all in hexadecimal::

    # reader: Identiv uTrust 2700 F
    # reader serial: 53692013000000
    # connected ATR 3bbf96008131fe5d00640411030131c073f701d00090007d
    > 0020008106************
    <  9000

The data field of a command that may hold a PIN is ``**`` a byte; no value in this module ever holds it. What a
DECIPHER returns is masked too, unless a tracer asks for it: it may be the key of a message.

A line that begins with ``#`` is a comment. Those of the example are read all the same; another ``# connected ATR``
among the exchanges says that the card was powered anew, or may have changed without us.
"""

from demail_hw.iso7816.trace.conversation import Trace
from demail_hw.iso7816.trace.deciphered import DecipherMask
from demail_hw.iso7816.trace.entry import TraceEntry
from demail_hw.iso7816.trace.events import CardPowered, CommandSent, PowerUp, ReaderOpened, TraceEvent
from demail_hw.iso7816.trace.exchange import TracedExchange
from demail_hw.iso7816.trace.masking import MASKED, mask
from demail_hw.iso7816.trace.reading import BadTrace
from demail_hw.iso7816.trace.tracers import LoggingTracer, Recorder, SeveralTracers, Tracer

__all__ = [
    "MASKED",
    "BadTrace",
    "CardPowered",
    "CommandSent",
    "DecipherMask",
    "LoggingTracer",
    "PowerUp",
    "ReaderOpened",
    "Recorder",
    "SeveralTracers",
    "Trace",
    "TraceEntry",
    "TraceEvent",
    "TracedExchange",
    "Tracer",
    "mask",
]
