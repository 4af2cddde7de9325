"""The small world: generated pictures with ScienceQA questions (the mini benchmark) or captions, from one seed."""
