"""Changed inputs of every kind pass, or are refused in one line, quickly and in little memory."""

import os
from pathlib import Path

import pytest

from tests.fuzz.campaign import attempts, prepare
from tests.fuzz.kinds import KINDS

pytestmark = [pytest.mark.fuzz, pytest.mark.slow]
COUNT = int(os.environ.get("FUZZ_COUNT", "120"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the valid examples."""
    return tmp_path_factory.mktemp("sources")


@pytest.mark.parametrize("name", KINDS)
def test_a_changed_input_passes_or_is_refused_in_one_line(
    name: str, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(sources / "cache"))
    if needed := KINDS[name].needs:
        pytest.importorskip(needed, reason=f"the package {needed} is not installed")
    source = prepare(name, sources)
    cases = list(attempts(name, source, tmp_path, range(COUNT)))
    bad = [case for case in cases if case.is_bad]
    shown = "\n".join(f"seed {case.seed}, {case.what!r}, {case.seconds:.1f} s: {case.detail}" for case in bad[:5])
    assert not bad, f"{len(bad)} of {COUNT}:\n{shown}"
    assert sum(case.outcome == "refused" for case in cases) > COUNT // 4
