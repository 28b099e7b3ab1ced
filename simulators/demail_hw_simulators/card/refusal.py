"""How anything inside the card ends a command: with a status word."""

__all__ = ["Refused"]


class Refused(Exception):
    """The card says no. ``status``: SW1-SW2."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status:04X}")
        self.status = status
