"""The code points of CCID 1.10, clauses 5.3 and 6."""

import enum

__all__ = [
    "ChainParameter",
    "ClassRequest",
    "ClockCommand",
    "ClockStatus",
    "CommandStatus",
    "IccStatus",
    "LevelParameter",
    "MessageType",
    "PowerSelect",
    "ProtocolNumber",
]


class MessageType(enum.IntEnum):
    """bMessageType (CCID 1.10, 6.1, 6.2 and 6.3)."""

    ICC_POWER_ON = 0x62
    ICC_POWER_OFF = 0x63
    GET_SLOT_STATUS = 0x65
    XFR_BLOCK = 0x6F
    GET_PARAMETERS = 0x6C
    RESET_PARAMETERS = 0x6D
    SET_PARAMETERS = 0x61
    ESCAPE = 0x6B
    ICC_CLOCK = 0x6E
    T0_APDU = 0x6A
    SECURE = 0x69
    MECHANICAL = 0x71
    ABORT = 0x72
    SET_DATA_RATE_AND_CLOCK_FREQUENCY = 0x73

    DATA_BLOCK = 0x80
    SLOT_STATUS = 0x81
    PARAMETERS = 0x82
    ESCAPE_DATA = 0x83
    DATA_RATE_AND_CLOCK_FREQUENCY = 0x84

    NOTIFY_SLOT_CHANGE = 0x50
    HARDWARE_ERROR = 0x51


class ClassRequest(enum.IntEnum):
    """bRequest of the control pipe (CCID 1.10, 5.3)."""

    ABORT = 0x01
    GET_CLOCK_FREQUENCIES = 0x02
    GET_DATA_RATES = 0x03


class PowerSelect(enum.IntEnum):
    """bPowerSelect (CCID 1.10, 6.1.1)."""

    AUTOMATIC = 0
    VOLTAGE_5_0 = 1
    VOLTAGE_3_0 = 2
    VOLTAGE_1_8 = 3


class ProtocolNumber(enum.IntEnum):
    """bProtocolNum (CCID 1.10, 6.1.7)."""

    T0 = 0x00
    T1 = 0x01
    TWO_WIRE = 0x80
    THREE_WIRE = 0x81
    I2C = 0x82


class LevelParameter(enum.IntEnum):
    """wLevelParameter of an XfrBlock at the extended-APDU level (CCID 1.10, 6.1.4)."""

    WHOLE = 0x0000
    BEGINS = 0x0001
    ENDS = 0x0002
    CONTINUES = 0x0003
    NEXT = 0x0010


class ChainParameter(enum.IntEnum):
    """bChainParameter of a DataBlock (CCID 1.10, 6.2.1). ``NEXT``: the reader wants more of the command."""

    WHOLE = 0x00
    BEGINS = 0x01
    ENDS = 0x02
    CONTINUES = 0x03
    NEXT = 0x10


class ClockCommand(enum.IntEnum):
    """bClockCommand (CCID 1.10, 6.1.9)."""

    RESTART = 0
    STOP = 1


class ClockStatus(enum.IntEnum):
    """bClockStatus (CCID 1.10, 6.2.2)."""

    RUNNING = 0
    STOPPED_LOW = 1
    STOPPED_HIGH = 2
    STOPPED = 3


class IccStatus(enum.IntEnum):
    """bmICCStatus (CCID 1.10, 6.2.6)."""

    ACTIVE = 0
    INACTIVE = 1
    ABSENT = 2


class CommandStatus(enum.IntEnum):
    """bmCommandStatus (CCID 1.10, 6.2.6)."""

    OK = 0x00
    FAILED = 0x40
    TIME_EXTENSION = 0x80
