"""The mini benchmark: generated pictures of a small world with questions in the format of ScienceQA, from one seed."""
