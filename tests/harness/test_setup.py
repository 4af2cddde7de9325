"""The command of the README, `run --methods dehvf,memvp --model 7b`, from an empty machine to its table."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.data.scienceqa import load_scienceqa
from tests.command_line import Run
from tests.standin_hub import (
    TEXTS,
    Hub,
    Repository,
    hub_on_this_machine,
    proxy_on_this_machine,
    save_parquet,
    use,
)

ROOT = Path(__file__).parents[2]
COMMAND = ["run", "--methods", "dehvf,memvp", "--model", "7b"]


@pytest.fixture
def hub(small_llm: Path, small_clip: Path, mini_set: Path, tmp_path: Path) -> Iterator[Hub]:
    """A hub with a small LLaMA-7B, a small CLIP and a small ScienceQA under their real names."""
    data = save_parquet(rows_of(mini_set), tmp_path / "hub-data")
    with hub_on_this_machine() as served:
        served.models["huggyllama/llama-7b"] = Repository(small_llm, licence="other")
        served.models["timm/vit_large_patch14_clip_224.openai"] = Repository(small_clip, licence="apache-2.0")
        served.datasets["derek-thomas/ScienceQA"] = Repository(data)
        yield served


def rows_of(root: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the problems of a set in the official layout as the rows that the hub has of ScienceQA."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
        for problem in load_scienceqa(root).samples(split):
            image = {"bytes": problem.image.read_bytes(), "path": None} if problem.image else None
            row = {field: getattr(problem, field, "") or "" for field in TEXTS}
            rows.setdefault(name, []).append(
                {**row, "choices": problem.choices, "answer": problem.answer, "image": image}
            )
    return rows


def start(arguments: list[str], home: Path, **environment: str) -> subprocess.Popen[str]:
    """Start a command as on a machine where nothing but the project is installed."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    for name in ("PEFT_VL_BENCH_DATA", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN", "XDG_CACHE_HOME"):
        kept.pop(name, None)
    own = {"HF_HOME": str(home / "huggingface"), "XDG_CACHE_HOME": str(home / "cache"), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.small_preset", *arguments],
        env={**kept, **own, **environment},
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(arguments: list[str], home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run such a command to its end."""
    with start(arguments, home, **environment) as process:
        try:
            out, err = process.communicate(timeout=1300)
        finally:
            process.kill()
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def run_until_killed(hub: Hub, name: str, after: int, home: Path) -> str:
    """Run the literal command, kill it when it has written a part of a download, and return its output.

    Args:
        hub: where it downloads from.
        name: the file in whose download it is killed.
        after: how many bytes of the file are sent to it.
        home: its folder.
    """
    hub.stall_after[name] = after
    with start(COMMAND, home, HF_ENDPOINT=hub.address) as process:
        while not hub.stalled.wait(timeout=0.1):
            assert process.poll() is None, process.communicate()
        begun = time.monotonic()
        while written(home) < after // 2 and time.monotonic() < begun + 30:
            time.sleep(0.05)
        process.kill()
        out, _ = process.communicate()
    hub.release.set()
    return out


def written(home: Path) -> int:
    """Return how many bytes of unfinished downloads are on the disk."""
    return sum(path.stat().st_size for path in home.rglob("*.partial"))


def downloaded(out: str) -> list[str]:
    """Return what a command said that it downloads."""
    said = [line for line in out.splitlines() if line.startswith("downloading")]
    return [line.partition(" (")[0].removeprefix("downloading ") for line in said]


def test_offline_says_what_is_missing_and_asks_nothing(
    call: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PEFT_VL_BENCH_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # the option sets it
    with hub_on_this_machine() as hub:
        use(hub.address, tmp_path / "hub-cache", monkeypatch)
        done = call(*COMMAND, "--offline", offline=False)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert line.startswith(
        "error: not on this machine: ScienceQA (626.0 MB, licence: CC BY-NC-SA 4.0 by its authors' page, but "
        f"cc-by-sa-4.0 by its card on the hub) from {hub.address}/"
    )
    assert hub.requests == []


@pytest.mark.slow
def test_the_literal_command_does_everything(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    # It is killed while it downloads the language model.
    weights = hub.models["huggyllama/llama-7b"].files()["model.safetensors"]
    killed = run_until_killed(hub, "model.safetensors", len(weights) // 2, home)
    assert downloaded(killed) == ["ScienceQA", "the weights of LLaMA-7B"]
    assert hub.ranges == []

    # It goes on from there. Now the hub is behind a proxy, and the download breaks off once more.
    hub.cut_after["model.safetensors"] = 3000
    with proxy_on_this_machine({"hub.invalid": hub.address}) as (proxy, seen):
        cold = run(COMMAND, home, HF_ENDPOINT="http://hub.invalid", HTTP_PROXY=proxy)
    assert cold.returncode == 0, cold.stderr
    assert seen and all(address.startswith("http://hub.invalid") for address in seen)
    assert downloaded(cold.stdout) == ["the weights of LLaMA-7B", "the weights of ViT-L-14-quickgelu:openai"]
    begins = [int(given.removeprefix("bytes=").removesuffix("-")) for given in hub.ranges]
    assert len(begins) == 2 and len(weights) // 4 <= begins[0] <= begins[1], begins
    assert "DEHVF" in cold.stdout and "MemVP" in cold.stdout
    assert (home / "cache/peft-vl-bench/data/scienceqa/problems.json").is_file()

    # Everything is here now: the hub may be away, and nothing is made again.
    hub.requests.clear()
    warm = run(COMMAND, home, HF_ENDPOINT="http://127.0.0.1:9")
    assert warm.returncode == 0, warm.stderr
    assert "downloading" not in warm.stdout
    assert warm.stdout.split("| Method")[1] == cold.stdout.split("| Method")[1]
