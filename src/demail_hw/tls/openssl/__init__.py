"""An OpenSSL 3 provider in ctypes, through which libssl asks the card for its signature."""
