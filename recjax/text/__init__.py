"""Item text to vectors."""
