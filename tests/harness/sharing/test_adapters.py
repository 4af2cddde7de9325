"""Adapters go to the hub and come back as they were; everything else is one line."""

import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, constants
from safetensors.torch import load_file, save_file

import harness
from harness.errors import UserError
from harness.records import read_record, write_record
from harness.sharing import adapters
from harness.sharing.adapters import adapter_upload
from harness.sharing.model_card import RECORD_FILE, Base, model_card
from methods import get_method
from methods.checkpoint import CONFIG_FILE, WEIGHTS_FILE
from tests import command_line
from tests.record_factory import OFFICIAL, make
from tests.standin_hub import Hub, Repository

call = partial(command_line.call, offline=False)
ASKED: dict[str, Any] = {"question": "which colour is it?", "choices": ["red", "blue", "green"]}
FILES = {"README.md", CONFIG_FILE, WEIGHTS_FILE, RECORD_FILE}


def refused(*arguments: object) -> str:
    """Return the one line with which a command ends that is used wrongly."""
    done = call(*arguments)
    lines = done.err.splitlines()
    assert done.code == 2 and done.out == "", done
    assert lines[-1].startswith("error: ") and not [line for line in lines if "Traceback" in line]
    return lines[-1]


def test_an_adapter_comes_back_as_it_was(hub: Hub, packaged: Path, tmp_path: Path) -> None:
    done = call("push", packaged, "--repo", "me/memvp")
    assert done.code == 0, done.err
    assert f"Uploaded to {hub.address}/me/memvp ({hub.address}/me/memvp/commit/" in done.out
    assert command_line.files(hub.models["me/memvp"].folder) == FILES
    assert not hub.models["me/memvp"].private

    done = call("pull", "me/memvp")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == "memvp: an adapter of memvp for scienceqa on tiny"
    folder = Path("memvp")
    assert command_line.files(folder) == FILES
    assert all((folder / name).read_bytes() == (packaged / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE))
    ask = ["--question", ASKED["question"], "--choices", ",".join(ASKED["choices"]), "--device", "cpu"]
    answers = [call("predict", "--adapter", place, *ask, "--format", "json") for place in (packaged, folder)]
    assert answers[0].code == 0 and answers[0].out == answers[1].out

    done = call("push", folder, "--repo", "me/again")
    assert done.code == 0, done.err
    for name in FILES - {"README.md"}:
        once, twice = (hub.models[repo].files()[name] for repo in ("me/memvp", "me/again"))
        assert once == twice


def test_the_functions_do_the_same(hub: Hub, packaged: Path) -> None:
    assert harness.push(packaged, "me/mine", private=True).startswith(f"{hub.address}/me/mine/commit/")
    assert hub.models["me/mine"].private
    folder = harness.pull("me/mine", out="sub/folder")
    assert folder == Path("sub/folder")
    assert harness.load_adapter(folder).answer(**ASKED) == harness.load_adapter(packaged).answer(**ASKED)


def test_a_dry_run_shows_the_card_and_asks_nobody(hub: Hub, packaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    done = call("push", packaged, "--repo", "me/memvp", "--private", "--dry-run")
    assert done.code == 0, done.err
    assert f"the private repository {hub.address}/me/memvp" in done.out
    for name in FILES:
        assert re.search(rf"^- {re.escape(name)} \(\d+ kB\)$|^- {re.escape(name)} \(.* MB\)$", done.out, re.MULTILINE)
    assert "## What these numbers cannot tell" in done.out
    assert hub.requests == []


def test_no_folder_of_this_machine_is_shared(hub: Hub, local: Path, small_llm: Path, small_clip: Path) -> None:
    assert call("push", local, "--repo", "me/local").code == 0
    shared = hub.models["me/local"].files()
    assert str(small_llm.parent).encode() not in b"".join(shared.values())
    backbone = json.loads(shared[CONFIG_FILE])["extra"]["backbone"]
    assert (backbone["llm"], backbone["clip"]) == (small_llm.name, f"local-dir:{small_clip.name}")
    assert "--llm FOLDER --clip local-dir:FOLDER" in shared["README.md"].decode()

    folder = harness.pull("me/local")
    ask = ["predict", "--adapter", folder, "--question", "which?", "--choices", "red,blue", "--device", "cpu"]
    clip = f"local-dir:{small_clip}"
    found = call(*ask, "--llm", small_llm, "--clip", clip, "--format", "json")
    assert found.code == 0, found.err
    before = harness.load_adapter(local).answer("which?", choices=["red", "blue"])
    assert json.loads(found.out) == {"text": before.text, "choice": before.choice, "raw": before.raw}
    assert "small-clip: " in refused(*ask, "--llm", small_llm)


def test_a_revision_is_what_the_repository_was(hub: Hub, packaged: Path, tmp_path: Path) -> None:
    harness.push(packaged, "me/memvp")
    first = hub.models["me/memvp"].commit
    changed = tmp_path / "changed"
    shutil.copytree(harness.pull("me/memvp"), changed)
    tensors = load_file(changed / WEIGHTS_FILE)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, changed / WEIGHTS_FILE, {"format": "pt"})
    harness.push(changed, "me/memvp")

    newest = harness.pull("me/memvp", out="newest")
    before = harness.pull("me/memvp", out="before", revision=first)
    assert (newest / WEIGHTS_FILE).read_bytes() == (changed / WEIGHTS_FILE).read_bytes()
    assert (before / WEIGHTS_FILE).read_bytes() == (packaged / WEIGHTS_FILE).read_bytes()
    assert "me/memvp: has no revision 'v9'; give a branch" in refused(
        "pull", "me/memvp", "--revision", "v9", "--out", "x"
    )


@pytest.mark.parametrize(
    ("repo", "message"),
    [
        ("memvp", "--repo memvp: has no owner"),
        ("me/two/three", "--repo me/two/three: is no name of a repository"),
        ("me/a b", "--repo me/a b: is no name of a repository"),
    ],
)
def test_names_that_no_repository_has(hub: Hub, packaged: Path, repo: str, message: str) -> None:
    assert message in refused("push", packaged, "--repo", repo)
    assert message.replace("--repo", "pull") in refused("pull", repo)
    assert hub.requests == []


def test_what_has_no_adapter_or_no_record(hub: Hub, packaged: Path, tmp_path: Path) -> None:
    assert "give a folder that holds a saved adapter" in refused("push", tmp_path, "--repo", "me/x")
    alone = Path(shutil.copytree(packaged, tmp_path / "alone"))
    assert "the record of its run is not there" in refused("push", alone, "--repo", "me/x")
    record = adapters._record_of(packaged)
    content = json.loads(record.read_text())
    content["config"]["train"]["base_lr"] = 1.0
    content.pop("config_hash")
    (alone / RECORD_FILE).write_text(json.dumps(content))
    assert "record.json: config.train: is not that of the adapter" in refused("push", alone, "--repo", "me/x")
    content = json.loads(record.read_text()) | {"status": "interrupted", "error": "stopped"}
    (alone / RECORD_FILE).write_text(json.dumps(content))
    assert "record.json: status: is 'interrupted'; complete the run" in refused("push", alone, "--repo", "me/x")
    assert hub.requests == []


def test_an_adapter_on_random_weights_is_not_shared(hub: Hub, packaged: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(packaged, tmp_path / "copy"))
    content = json.loads((folder / CONFIG_FILE).read_text())
    content["extra"]["backbone"] |= {"model": "bench", "llm": None, "clip": None}
    (folder / CONFIG_FILE).write_text(json.dumps(content))
    assert "'bench' has no pretrained weights" in refused("push", folder, "--repo", "me/x")
    shutil.copyfile(packaged / CONFIG_FILE, folder / CONFIG_FILE)
    record = json.loads(adapters._record_of(packaged).read_text()) | {"metrics": {}}
    record["backbone"]["weights"] = "random"
    (folder / RECORD_FILE).write_text(json.dumps(record))
    assert "record.json: backbone.weights: is 'random'" in refused("push", folder, "--repo", "me/x")
    assert hub.requests == []


def test_the_card_has_the_remarks_on_the_run(packaged: Path, tmp_path: Path) -> None:
    results = packaged.parents[4]
    copy = Path(shutil.copytree(results, tmp_path / "results"))
    record = read_record(adapters._record_of(packaged))
    remarks = [{"runs": [record.spec_hash], "text": "Was throttled."}, {"runs": ["0" * 16], "text": "Of another run."}]
    (copy / "remarks.json").write_text(json.dumps({"remarks": remarks}))
    card = adapter_upload(copy / packaged.relative_to(results), "me/memvp").files["README.md"]
    assert isinstance(card, bytes)
    assert b"- Was throttled." in card and b"Of another run." not in card


def on_hub(hub: Hub, folder: Path, packaged: Path) -> Path:
    """Put an adapter on the hub as `other/adapter`, to be changed, and return its folder there."""
    shutil.copytree(packaged, folder)
    hub.models["other/adapter"] = Repository(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (CONFIG_FILE, b"{}", "other/adapter: holds no adapter that can be loaded here"),
        (CONFIG_FILE, b'{"base_model_name_or_path": "x", "peft_type": "LORA"}', "field 'method': Field required"),
        (CONFIG_FILE, b"[" * 10**5, "is not valid JSON"),
        (CONFIG_FILE, b" " * (10**6 + 1), "adapter_config.json: has 1.0 MB, more than the 1.0 MB"),
        ("README.md", b" " * 2_000_000, "README.md: has 2.0 MB, more than the 1.0 MB"),
        (WEIGHTS_FILE, b"", "cannot be read as safetensors"),
        (WEIGHTS_FILE, b"\xff" * 1000, "cannot be read as safetensors"),
    ],
)
def test_hostile_files_are_not_kept(
    hub: Hub, packaged: Path, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (on_hub(hub, tmp_path / "theirs", packaged) / name).write_bytes(content)
    assert message in refused("pull", "other/adapter")
    assert list(Path().iterdir()) == []


def test_other_files_are_not_downloaded(hub: Hub, packaged: Path, tmp_path: Path) -> None:
    folder = on_hub(hub, tmp_path / "theirs", packaged)
    for name in ("model.py", "adapter_model.bin", "sub/adapter_model.safetensors", "tokenizer.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert command_line.files(harness.pull("other/adapter")) == {CONFIG_FILE, WEIGHTS_FILE}
    assert {name.partition(" ")[0] for name in hub.downloads()} == {CONFIG_FILE, WEIGHTS_FILE}


def test_tensors_of_another_shape_are_not_kept(hub: Hub, packaged: Path, tmp_path: Path) -> None:
    folder = on_hub(hub, tmp_path / "theirs", packaged)
    tensors = load_file(folder / WEIGHTS_FILE)
    save_file(tensors | {"more": next(iter(tensors.values())).clone()}, folder / WEIGHTS_FILE)
    assert "'more': is not a parameter" in refused("pull", "other/adapter")
    assert list(Path().iterdir()) == []


def test_repositories_without_an_adapter(hub: Hub, packaged: Path, tmp_path: Path) -> None:
    folder = on_hub(hub, tmp_path / "theirs", packaged)
    (folder / CONFIG_FILE).unlink()
    assert "other/adapter: has no adapter_config.json" in refused("pull", "other/adapter")
    (folder / WEIGHTS_FILE).rename(folder / "adapter_model.bin")
    line = refused("pull", "other/adapter")
    assert f"has none of {WEIGHTS_FILE} (its adapter_model.bin may be a pickle" in line
    assert "that `python -m harness push` has made" in line
    assert "no/where: there is no such repository, or it is private" in refused("pull", "no/where")


def test_a_gated_adapter_needs_a_token(
    hub: Hub, packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_hub(hub, tmp_path / "theirs", packaged)
    hub.models["other/adapter"].gated = True
    monkeypatch.delenv("HF_TOKEN")
    assert "other/adapter: access is restricted; ask for it on that page" in refused("pull", "other/adapter")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert call("pull", "other/adapter").code == 0


def test_half_a_download_is_not_kept(hub: Hub, packaged: Path, tmp_path: Path) -> None:
    on_hub(hub, tmp_path / "theirs", packaged)
    hub.damaged.add(WEIGHTS_FILE)
    assert f"{WEIGHTS_FILE} arrived damaged" in refused("pull", "other/adapter")
    assert list(Path().iterdir()) == []
    hub.damaged.clear()
    assert call("pull", "other/adapter").code == 0


def test_what_is_there_is_not_replaced(hub: Hub, packaged: Path, tmp_path: Path) -> None:
    on_hub(hub, tmp_path / "theirs", packaged)
    Path("adapter").mkdir()
    Path("adapter/mine").write_text("kept")
    assert "adapter: exists and is not an empty folder" in refused("pull", "other/adapter")
    assert hub.requests == [] and command_line.files(Path()) == {"adapter/mine"}


def test_a_hub_that_is_off_or_away(hub: Hub, packaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = command_line.call("push", packaged, "--repo", "me/memvp")
    assert done.code == 2 and "the hub is switched off; unset HF_HUB_OFFLINE" in done.err
    done = command_line.call("pull", "me/memvp")
    assert done.code == 2 and "cannot be downloaded, because the hub is switched off; unset HF_HUB_OFFLINE" in done.err
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "uploaded, because the hub does not answer" in refused("push", packaged, "--repo", "me/memvp")
    assert "downloaded, because the hub does not answer" in refused("pull", "me/memvp")
    assert list(Path().iterdir()) == []


def test_the_card_is_made_from_the_record(packaged: Path) -> None:
    content = adapter_upload(packaged, "me/memvp").files["README.md"]
    assert isinstance(content, bytes)
    card = ModelCard(content.decode())
    record = read_record(adapters._record_of(packaged))
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "peft-vl-bench")
    assert {"memvp", "scienceqa", "tiny"} <= set(card.data.tags)
    assert card.data.get("datasets") is None and card.data.get("base_model") is None
    shown = {result.metric_name: result for result in card.data.eval_results}
    valued = {name: metric.value for name, metric in record.metrics.items() if metric.value is not None}
    assert {name: result.metric_value for name, result in shown.items()} == pytest.approx(valued, abs=1e-4)
    assert {result.dataset_type for result in shown.values()} == {record.data.name}
    for text in (
        str(record.backbone.weight_hash),
        "one run with one seed",
        "The backbone is the small one that comes with the project",
        "No table includes this run: on part of the data only (--limit).",
        "tiny is on the data set",
        "python -m harness pull me/memvp",
        'harness.load_adapter(harness.pull("me/memvp"))',
        "`config.train.base_lr`",
        "`environment.versions.torch`",
    ):
        assert text in card.text, text


def test_the_card_of_the_real_size() -> None:
    made = make("memvp", 3, 90.0)
    data = made.data.model_copy(update={"split_sizes": OFFICIAL, "name": "scienceqa"})
    record = made.model_copy(update={"data": data, "model": "7b"})
    base = Base("huggyllama/llama-7b", "other", "`huggyllama/llama-7b`")
    card = ModelCard(str(model_card(record, get_method("memvp"), base, "me/large")))
    assert (card.data.base_model, card.data.license) == ("huggyllama/llama-7b", "other")
    assert card.data.datasets == ["derek-thomas/ScienceQA"]
    assert {result.dataset_type for result in card.data.eval_results} == {"derek-thomas/ScienceQA"}
    assert "No table includes" not in card.text


def test_text_of_a_record_stays_text_in_the_card() -> None:
    record = make("memvp", 0, 50.0).model_copy(update={"tuning": "<script>alert(1)</script> [x](javascript:y) | a"})
    text = str(model_card(record, get_method("memvp"), Base(None, None, "a backbone"), "me/x"))
    assert "<script>" not in text and "](javascript" not in text


@pytest.mark.parametrize(
    ("model", "llm", "clip", "expected"),
    [
        ("tiny", None, None, (None, None)),
        ("7b", "/weights/llama-7b", "ViT-L-14-quickgelu:openai", ("huggyllama/llama-7b", "ViT-L-14-quickgelu:openai")),
        ("x", "someone/model", "ViT-B-32:openai", ("someone/model", "ViT-B-32:openai")),
        ("x", "/home/me/model", "local-dir:/home/me/clip", ("model", "local-dir:clip")),
        ("x", "./m.gguf", "local-dir:clip", ("m.gguf", "local-dir:clip")),
        ("x", "secret/m.gguf", "local-dir:clip", ("m.gguf", "local-dir:clip")),
        ("x", "secret/model/", "local-dir:clip", ("model", "local-dir:clip")),
    ],
)
def test_how_others_find_a_backbone(model: str, llm: str, clip: str, expected: tuple[str, str]) -> None:
    saved = adapters.SavedBackbone(model=model, llm=llm, clip=clip, weight_hash="0" * 64, dtype="float32")
    shared = adapters._shared(saved)
    assert (shared.llm, shared.clip) == expected
    assert "/home/me" not in adapters._base(shared).described


def test_a_record_that_lies_elsewhere_is_not_guessed(packaged: Path, tmp_path: Path) -> None:
    write_record(read_record(adapters._record_of(packaged)), tmp_path)
    with pytest.raises(UserError, match="the record of its run is not there"):
        adapter_upload(Path(shutil.copytree(packaged, tmp_path / "adapters/a/b/c")), "me/x")
