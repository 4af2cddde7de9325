"""Data sets: loading and checking them, prompts, images, batches, and the generated small world."""
