"""The simulated TCOS card."""
