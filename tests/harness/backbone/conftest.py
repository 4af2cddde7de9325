"""Fixtures of the backbone's tests."""

import pytest

from harness.backbone import requirements


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub and an empty cache."""
    monkeypatch.setattr(requirements.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(requirements, "try_to_load_from_cache", lambda repo, file: None)
