"""The other end of every wire: card, reader, gateway, certification authority, faults."""
