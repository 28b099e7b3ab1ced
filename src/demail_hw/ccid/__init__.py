"""CCID 1.10: messages, both state machines without any I/O, and a reader over any USB transport."""
