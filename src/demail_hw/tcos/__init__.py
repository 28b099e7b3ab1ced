"""TCOS: files, PINs, keys, and the profiles of the cards."""
