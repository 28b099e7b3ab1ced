"""TLS with a card's key in an ordinary ssl.SSLContext."""
