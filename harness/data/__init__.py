"""Data sets: one internal record type, prompts, images, and the procedural world."""
