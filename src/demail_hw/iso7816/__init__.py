"""ISO 7816: what every card understands."""
