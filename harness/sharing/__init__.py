"""Adapters and results on the model hub: uploads with a card, and downloads of adapters."""
