"""USB 2.0: descriptors and setup packets."""
