"""Tests; a package so that `python -m tests.golden_check` runs."""
