"""What is checked before the first run: that prompts, and what follows them, fit into the language model's context."""

import re
from pathlib import Path

import pytest
import torch

from harness.backbone.machine import Machine
from harness.config.plan import Overrides, RunPlan, plan_runs
from harness.config.presets import BackboneSpec, resolve_spec
from harness.data.prompts import tokenize_prompt
from harness.errors import UserError
from harness.run import checks as checks_module
from harness.run.checks import PlanChecks
from harness.tasks.contract import DataOptions
from harness.tasks.scienceqa import ScienceQATask
from tests.folders import byte_tokenizer, save_llm

CPU = Machine(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def task(mini_set: Path) -> ScienceQATask:
    return ScienceQATask(DataOptions(mini_set))


def planned(method: str, spec: BackboneSpec, protocol: str = "uniform", **settings: object) -> RunPlan:
    (plan,) = plan_runs([method], [], [0], spec, "scienceqa", Overrides(settings=settings, protocol=protocol))
    return plan


def inserted(method: str) -> range:
    """How many tokens a method inserts into a prompt with an image, on the backbone of the fixtures."""
    patches = (32 // 8) ** 2
    return {"llava_lora": range(patches, patches + 1), "lavin": range(2, 40)}.get(method, range(1))


@pytest.mark.parametrize("method", ["memvp", "llava_lora", "lavin", "oracle"])
def test_an_answer_fits_behind_the_longest_prompt(method: str, spec: BackboneSpec, task: ScienceQATask) -> None:
    checks = PlanChecks(spec, task, CPU)

    def refused(new: int) -> str:
        with pytest.raises(UserError) as caught:
            checks(planned(method, spec, scoring="generate", max_new_tokens=new))
        return str(caught.value)

    message = refused(1024)
    assert "\n" not in message and message.startswith(f"--set max_new_tokens=1024: {method} reads the prompt of ")
    taken, most = (int(re.search(pattern, message)[1]) for pattern in (r"as (\d+) tokens", r"give at most (\d+)$"))
    assert taken + most == 1024
    plan = planned(method, spec, scoring="generate", max_new_tokens=most)
    decoding = task.decoding(plan.recipe, described=method == "oracle")
    lengths = [len(tokenize_prompt(byte_tokenizer(), prompt.prompt, 1024).input_ids) for prompt in decoding.prompts]
    assert taken - max(lengths) in inserted(method)
    assert checks(plan) is None
    assert f"give at most {most}" in refused(most + 1)
    # What answers with one token, or with none, writes no text.
    for scoring in ("letter", "likelihood"):
        assert checks(planned(method, spec, scoring=scoring, max_new_tokens=5000)) is None


@pytest.mark.parametrize("method", ["llava_lora", "memvp", "oracle"])
@pytest.mark.parametrize(("scoring", "behind"), [("letter", 0), ("likelihood", 3)])
def test_a_prompt_fits_with_what_the_method_inserts_also_where_no_text_is_written(
    scoring: str, behind: int, method: str, task: ScienceQATask, spec: BackboneSpec, small_clip: Path, tmp_path: Path
) -> None:
    recipe = planned(method, spec, scoring=scoring).recipe
    prompts = task.decoding(recipe, described=method == "oracle").prompts
    longest = max(len(tokenize_prompt(byte_tokenizer(), prompt.prompt, 1024).input_ids) for prompt in prompts)
    context = longest + inserted(method)[0] + behind

    def check(context: int) -> None:
        llm = save_llm(tmp_path / f"{context}", max_position_embeddings=context)
        small = resolve_spec("tiny", str(llm), f"local-dir:{small_clip}")
        PlanChecks(small, task, CPU)(planned(method, small, scoring=scoring, max_length=min(context, longest)))

    check(context)
    if context == longest:  # `max_length` itself cuts the prompt
        return
    with pytest.raises(UserError, match=rf"--set max_length=.*{method}.* reads at most {context - 1}; give a smaller"):
        check(context - 1)


def test_prompts_that_methods_share_are_tokenised_once(
    spec: BackboneSpec, task: ScienceQATask, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []

    def noted(tokenizer: object, text: str, limit: int) -> object:
        texts.append(text)
        return tokenize_prompt(tokenizer, text, limit)

    monkeypatch.setattr(checks_module, "tokenize_prompt", noted)
    asked = task.decoding(planned("memvp", spec, scoring="generate").recipe).prompts
    longest = max(len(tokenize_prompt(byte_tokenizer(), example.prompt, 1024).input_ids) for example in asked)
    checks = PlanChecks(spec, task, CPU)
    for method in ("memvp", "dehvf"):
        checks(planned(method, spec, scoring="generate", max_new_tokens=1024 - longest))
    assert sorted(texts) == sorted({example.prompt for example in asked})


def test_the_shipped_tokenizer_suits_the_vocabulary_of_random_weights(
    task: ScienceQATask, small_clip: Path, tmp_path: Path
) -> None:
    llm = save_llm(tmp_path / "llm", vocab_size=300)
    small = resolve_spec("tiny", str(llm), f"local-dir:{small_clip}")
    message = (
        r"^--weights random: .* shipped tokenizer, which has ids up to 1301, but .*llm has a vocab_size of 300; give"
    )
    with pytest.raises(UserError, match=message):
        PlanChecks(small, task, Machine(torch.device("cpu"), torch.float32, "random"))
    assert PlanChecks(small, task, CPU)(planned("memvp", small)) is None


def test_prompts_are_to_be_cut_where_the_protocol_fixes_the_answers(
    task: ScienceQATask, spec: BackboneSpec, small_clip: Path, tmp_path: Path
) -> None:
    decoding = task.decoding(planned("lavin", spec, "published").recipe)
    context = 60 + max(len(byte_tokenizer().encode(prompt.prompt)) for prompt in decoding.prompts)
    llm = save_llm(tmp_path / "llm", max_position_embeddings=context)
    small = resolve_spec("tiny", str(llm), f"local-dir:{small_clip}")
    checks = PlanChecks(small, task, CPU)
    with pytest.raises(UserError, match=rf"64 more do not fit: .* {context}; give a smaller --set max_length"):
        checks(planned("lavin", small, "published", max_length=context - 20))


@pytest.mark.parametrize(("method", "limit"), [("lavin", 16), ("llava_lora", (32 // 8) ** 2 + 1)])
def test_a_method_that_cuts_off_every_answer_is_refused(
    method: str, limit: int, task: ScienceQATask, spec: BackboneSpec
) -> None:
    message = rf"^--set {method}\.max_length={limit}: cuts off every answer, .* first; give a larger number"
    with pytest.raises(UserError, match=message):
        PlanChecks(spec, task, CPU)(planned(method, spec, **{f"{method}.max_length": limit}))


def test_texts_that_the_model_cannot_read_must_be_shorter(
    task: ScienceQATask, small_clip: Path, tmp_path: Path
) -> None:
    llm = save_llm(tmp_path / "llm", max_position_embeddings=16)
    small = resolve_spec("tiny", str(llm), f"local-dir:{small_clip}")
    message = r"^--set max_length=16: cuts off every answer, .*; give shorter texts \(.* reads at most 16 tokens\)"
    with pytest.raises(UserError, match=message):
        PlanChecks(small, task, CPU)(planned("memvp", small, max_length=16))


def test_a_method_that_cuts_off_some_answers_is_named(task: ScienceQATask, spec: BackboneSpec) -> None:
    examples = task.train_examples(planned("llava_lora", spec).recipe)
    patches = (32 // 8) ** 2
    # One byte is one token, and the prompt has a BOS. A text without an image has no patches.
    before = sorted(1 + len(e.prompt.encode()) + (patches if e.image is not None else 0) for e in examples)
    assert before[-1] > before[-2]
    checks = PlanChecks(spec, task, CPU)
    note = checks(planned("llava_lora", spec, **{"llava_lora.max_length": before[-1]}))
    assert note is not None
    assert f"--set llava_lora.max_length={before[-1]} cuts off the whole answer of 1 of {len(examples)} " in note
    assert checks(planned("llava_lora", spec, **{"llava_lora.max_length": before[-1] + 1})) is None


@pytest.mark.parametrize("method", ["llava_lora", "lavin", "memvp"])
def test_a_training_text_fits_with_the_tokens_that_a_method_inserts(
    method: str, task: ScienceQATask, small_clip: Path, tmp_path: Path
) -> None:
    def small(context: int) -> BackboneSpec:
        llm = save_llm(tmp_path / str(context), max_position_embeddings=context)
        return resolve_spec("tiny", str(llm), f"local-dir:{small_clip}")

    recipe = planned(method, small(1024)).recipe
    lengths = {
        e.id: len(byte_tokenizer().encode(e.prompt + str(e.answer))) + 2
        for e in task.train_examples(recipe)
        if e.image is not None
    }
    longest = max(lengths, key=lambda name: lengths[name])

    def check(context: int) -> None:
        spec = small(context)
        PlanChecks(spec, task, CPU)(planned(method, spec, scoring="letter", max_length=context))

    if method == "memvp":
        return check(lengths[longest])
    most = max(inserted(method))
    check(lengths[longest] + most)
    message = (
        rf"{method} reads training example '{longest}' as \d+ tokens, but .* reads at most {lengths[longest]}; give"
    )
    with pytest.raises(UserError, match=message):
        check(lengths[longest])
