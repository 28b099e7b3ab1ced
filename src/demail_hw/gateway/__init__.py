"""The De-Mail connector's proof that all works: mutual TLS to the gateway, and the domains it knows."""
