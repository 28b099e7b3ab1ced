"""The commands of the card, a concern a module; :mod:`.table` finds the handler of an instruction byte."""
