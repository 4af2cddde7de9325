"""Fixtures of the fuzzers: the small backbone of the harness tests."""

from tests.harness.conftest import small_clip, small_llm, spec

__all__ = ["small_clip", "small_llm", "spec"]
