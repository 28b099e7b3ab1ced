"""What one does to a card by hand: its PINs and its certificates (what TeleSec's CardManager does)."""
