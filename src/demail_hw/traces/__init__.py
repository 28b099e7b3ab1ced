"""Traces in files: recorded, read, replayed in the place of a card, and compared with one."""
