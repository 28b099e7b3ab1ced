"""USB/IP: its messages, and both state machines without any I/O."""
