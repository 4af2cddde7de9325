"""Runs under the two protocols, and with each way of scoring, from the command line."""

import json
import shutil
from pathlib import Path

import pytest

from harness.records import Record, predictions_path, read_records, record_path
from tests.command_line import Run
from tests.folders import byte_tokenizer


@pytest.fixture
def tiny(mini_set: Path, tmp_path: Path) -> list[str]:
    """The arguments of a run of two optimiser steps of the shipped model."""
    quick = ["--steps", "2", "--set", "batch_size=4", "--jobs", "1"]
    return ["run", "--model", "tiny", "--data-root", str(mini_set), *quick, "--results", str(tmp_path / "results")]


def made(results: Path) -> dict[str, Record]:
    return {f"{record.label} {record.protocol}": record for record in read_records(results)}


def rows(record: Record, results: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in predictions_path(record_path(record, results)).read_text().splitlines()]


@pytest.mark.slow
def test_each_method_is_run_as_its_own_code_did(call: Run, tiny: list[str], tmp_path: Path) -> None:
    results = tmp_path / "results"
    done = call(*tiny, "--protocol", "published", "--methods", "lavin,memvp")
    assert done.code == 0, done.err
    assert "ScienceQA test accuracy (%), published protocol" in done.out
    assert call(*tiny, "--methods", "memvp").code == 0
    found = made(results)
    lavin, memvp, plain = (found[name] for name in ("lavin published", "memvp published", "memvp uniform"))
    settings = ("prompt_format", "use_caption", "eval_prompt_format", "eval_use_caption", "scoring", "max_new_tokens")
    assert [lavin.config["train"][name] for name in settings] == ["QCM-ALE", False, "QCM-ALE", False, "generate", 64]
    assert [memvp.config["train"][name] for name in settings] == ["QCM-A", False, "QCM-A", True, "letter", 64]
    assert [plain.config["train"][name] for name in settings] == ["QCM-A", False, "QCM-A", False, "letter", 64]
    # Captions change what is asked about pictures, and nothing in training.
    asked = [{row["qid"]: row["prompt_sha256"] for row in rows(record, results)} for record in (memvp, plain)]
    assert asked[0] != asked[1] and memvp.loss == plain.loss
    assert max(len(str(row["raw"])) for row in rows(lavin, results)) > 10


def test_protocols_are_never_in_one_table(call: Run, tiny: list[str], tmp_path: Path) -> None:
    results = tmp_path / "results"
    for protocol in ("uniform", "published"):
        assert call(*tiny, "--methods", "memvp", "--protocol", protocol).code == 0
    asked = ("--results", results, "--model", "tiny")
    values = {}
    for protocol in ("uniform", "published"):
        table = call("table", *asked, "--format", "json", "--protocol", protocol).out
        (row,) = [row for row in json.loads(table) if row["seeds"]]
        assert (row["protocol"], row["seeds"]) == (protocol, [0])
        values[protocol] = row["metrics"]["Avg"]["value"]
    own = {protocol: made(results)[f"memvp {protocol}"].metrics["Avg"].value for protocol in values}
    assert values == own
    shown = call("table", *asked).out
    assert "uniform protocol" in shown
    assert "1 run left out: of the published protocol, which --protocol published shows." in shown
    assert call("readme", "--results", results).code == 0
    page = (results / "README.md").read_text()
    assert "### tiny: table 1\n" in page and "### tiny: table 1, published protocol\n" in page


def test_a_record_of_the_published_protocol_gives_its_options(call: Run, tiny: list[str], tmp_path: Path) -> None:
    results, saved = tmp_path / "results", tmp_path / "saved.toml"
    run = [*tiny, "--methods", "lavin", "--protocol", "published"]
    assert call(*run, "--save-config", saved).code == 0
    assert "already recorded" in call("run", "--config", saved).out
    (record,) = read_records(results)
    own = tmp_path / "own.toml"
    own.write_text(call("records", "config", record_path(record, results)).out)
    folders = ("--data-root", tiny[tiny.index("--data-root") + 1], "--results", results)
    done = call("run", "--config", own, *folders)
    assert "already recorded" in done.out, done.err


@pytest.mark.slow
def test_published_sampling_is_an_option_with_its_seed_in_the_record(
    call: Run, tiny: list[str], tmp_path: Path
) -> None:
    results = tmp_path / "results"
    for more in ((), ("--set", "sampling_seed=5")):
        assert call(*tiny, "--methods", "lavin", "--protocol", "published", *more).code == 0
    greedy, sampled = sorted(read_records(results), key=lambda r: str(r.config["train"]["sampling_seed"]), reverse=True)
    assert greedy.config["train"]["sampling_seed"] is None and sampled.config["train"]["sampling_seed"] == 5
    assert greedy.spec_hash != sampled.spec_hash
    said = rows(sampled, results)
    assert sampled.parse_failures.count == sum("guessed" in row for row in said)
    assert all(row["choice"] is not None for row in said)
    assert greedy.parse_failures.count == sum(row["choice"] is None for row in rows(greedy, results))


def test_captions_that_are_missing_are_named(call: Run, tiny: list[str], mini_set: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(mini_set, tmp_path / "bare")
    (bare / "captions.json").unlink()
    tiny[tiny.index("--data-root") + 1] = str(bare)
    done = call(*tiny, "--methods", "memvp", "--protocol", "published")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: --protocol published: ") and "has no captions.json" in done.err


@pytest.mark.parametrize("format", ["QCM-LEA", "QCM-LA", "QCM-EA", "QCM-ELA"])
def test_an_answer_that_comes_last_is_decoded(format: str, call: Run, base: list[str], tmp_path: Path) -> None:
    done = call(*base, "--methods", "memvp", "--set", f"prompt_format={format}", "--set", "max_new_tokens=6")
    assert done.code == 0, done.err
    (record,) = read_records(tmp_path / "results")
    assert (record.config["train"]["scoring"], record.config["train"]["eval_prompt_format"]) == ("generate", format)
    assert record.parse_failures.count == 12  # six random bytes name no letter
    assert "Answers that could not be read: memvp 100.00 %; they count as wrong." in done.out


def test_letters_of_several_tokens_are_refused_or_scored_in_another_way(
    call: Run, base: list[str], small_llm: Path, tmp_path: Path
) -> None:
    foreign = shutil.copytree(small_llm, tmp_path / "foreign")
    byte_tokenizer("B").save_pretrained(foreign)
    base[base.index("--llm") + 1] = str(foreign)
    done = call(*base, "--methods", "memvp")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith("error: --set scoring=letter: A, C, D")
    assert done.err.endswith("give --set scoring=generate or likelihood\n")
    assert not (tmp_path / "results" / "records").exists() or not read_records(tmp_path / "results")
    for scoring in ("generate", "likelihood"):
        assert call(*base, "--methods", "memvp", "--set", f"scoring={scoring}", "--set", "max_new_tokens=4").code == 0
    found = {record.config["train"]["scoring"]: record for record in read_records(tmp_path / "results")}
    assert set(found) == {"generate", "likelihood"}
    assert found["likelihood"].parse_failures.count == 0
