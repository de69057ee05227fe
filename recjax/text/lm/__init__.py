"""Decoder-only language models, read from Hugging Face folders."""
