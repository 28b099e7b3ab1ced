"""What a signature and a handshake cost: one file a question, one report. ``python -m benchmarks`` runs all."""
