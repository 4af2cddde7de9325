"""The mini benchmark: a small drawn world with questions in ScienceQA's format, made on the spot from a seed."""

from harness.data.mini.build import build_mini, ensure_mini

__all__ = ["build_mini", "ensure_mini"]
