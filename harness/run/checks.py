"""What is checked before the first run of a sweep starts, so that nothing that can be known stops a run half-way."""

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from harness.backbone.language_model import llm_config, llm_size
from harness.backbone.loader import tokenizer_of
from harness.backbone.machine import Machine
from harness.backbone.requirements import GIB
from harness.config.plan import RunPlan
from harness.config.presets import BackboneSpec
from harness.data.collate import Example
from harness.data.prompts import IGNORED, tokenize_example, tokenize_prompt
from harness.errors import UserError
from harness.files import remove_stale, require_writable
from harness.processes import shards
from harness.records import read_records
from harness.run.attach import attach_on_meta
from harness.tasks.contract import Task
from methods.cost import Costed

SLOW_TO_READ = 4 * GIB
"""Bytes of a language model that takes a minute or more to read and hash, during which nothing else is shown."""


def check_runs(
    plans: Sequence[RunPlan],
    spec: BackboneSpec,
    task: Task,
    machine: Machine,
    results_dir: Path,
    eval_every: int = 0,
) -> list[str]:
    """Check everything that would stop one of the runs.

    Args:
        plans: the runs.
        spec: the backbone.
        task: the task, with its data read.
        machine: device, dtype and kind of weights.
        results_dir: folder of the records.
        eval_every: optimiser steps between two validations during training; 0 never validates.

    Returns:
        What a user should know before the first run starts, one line each.

    Raises:
        UserError: a method cannot be built at this size, the tokenizer does not suit the scoring, `max_length` exceeds
            the language model's context, it or a method's own one cuts off every answer, a training text, a prompt or
            what follows it may exceed the context together with the tokens that a method inserts, the data does not
            suit a run, the results cannot be written, or one of the records that are there is bad.
    """
    checks = PlanChecks(spec, task, machine, eval_every)
    notes = [note for plan in {plan.label: plan for plan in plans}.values() if (note := checks(plan))]
    for name in ("records", "adapters"):
        require_writable(results_dir / name)
    for name in ("records", "adapters", "unfinished", "samples"):
        remove_stale(results_dir / name)
    # The table at the end reads all records: a bad one is better known now.
    read_records(results_dir)
    size = llm_size(spec, machine.dtype).bytes
    if machine.weights != "random" and size > SLOW_TO_READ:
        notes.append(f"{spec.name}: reading {size / GIB:.0f} GiB of weights: now to hash them, and before each run")
    return notes


class TrainingText(NamedTuple):
    """How long a training example is, cut at `max_length`.

    Attributes:
        id: id of the example.
        has_image: whether it carries an image.
        tokens: number of its tokens.
        prompt: how many of them come before its answer; all if the answer is cut off.
    """

    id: str
    has_image: bool
    tokens: int
    prompt: int


class PlanChecks:
    """Checks runs one by one.

    Args:
        spec: the backbone.
        task: the task, with its data read.
        machine: device, dtype and kind of weights.
        eval_every: optimiser steps between two validations during training; 0 never validates.

    Raises:
        UserError: there is no usable tokenizer.
    """

    def __init__(self, spec: BackboneSpec, task: Task, machine: Machine, eval_every: int = 0) -> None:
        self.spec, self.task, self.machine, self.eval_every = spec, task, machine, eval_every
        # transformers' own annotation of `decode` is narrower than what it takes.
        self._tokenizer: Any = tokenizer_of(spec, machine.weights)
        # Methods mostly share their texts and `max_length`: these are tokenised once for all of them.
        self._training_texts = cache(partial(_training_texts, self._tokenizer))
        self._longest_prompt = cache(partial(_longest_prompt, self._tokenizer))

    def __call__(self, plan: RunPlan) -> str | None:
        """Check one run, and return what a user should know before it starts, if there is anything.

        Raises:
            UserError: the run cannot be made, see `check_runs`.
        """
        spec, task = self.spec, self.task
        context = llm_config(spec).max_position_embeddings
        reads = f"{spec.display} reads at most {context} tokens"
        if plan.recipe.max_length > context:
            raise UserError(f"--set max_length={plan.recipe.max_length}: {reads}; give a smaller number")
        task.evaluation_size(plan.recipe)
        task.require_answerable(plan.recipe, self._tokenizer)
        if plan.recipe.captured and self.machine.device.type != "cuda":
            raise UserError("--set captured=true: CUDA graphs need a GPU; leave it out, or give --device cuda")
        if plan.recipe.captured and spec.quantize is not None:
            raise UserError("--set captured=true: a quantised model is not captured; leave it out, or --quantize")
        if plan.recipe.captured and shards() > 1:
            raise UserError(
                "--set captured=true: divided layers are not captured; leave it out, or launch without FSDP"
            )
        if plan.is_oracle:
            task.require_oracle(plan.recipe)
            self._require_positions(plan, None, context)
            return None
        if self.eval_every:
            task.require_validation(plan.recipe)
        limit = plan.recipe.max_length
        texts = self._training_texts(limit, tuple(task.train_examples(plan.recipe)))
        advice = f"give a larger number ({reads})" if limit < context else f"give shorter texts ({reads})"
        cut = [text.id for text in texts if text.prompt >= limit]
        note = _cut_note(plan, f"max_length={limit}", cut, texts, advice)
        _, method = attach_on_meta(plan, spec)
        if (own := getattr(plan.config, "max_length", None)) is not None:
            cut = [text.id for text in texts if text.prompt >= _kept(method, limit, text.has_image)]
            advice = f"give a larger number ({reads})"
            note = _cut_note(plan, f"{plan.method}.max_length={own}", cut, texts, advice) or note
        self._require_training_positions(plan, method, texts, context)
        self._require_positions(plan, method, context)
        return note

    def _require_training_positions(
        self, plan: RunPlan, method: object, texts: Sequence[TrainingText], context: int
    ) -> None:
        """Check that the longest training text with an image fits into the language model's context.

        A text without an image has no visual tokens, and `max_length` is its limit.

        Args:
            plan: the run.
            method: the method on the meta device, which may insert tokens.
            texts: the training texts.
            context: number of positions of the language model.

        Raises:
            UserError: it does not.
        """
        longest = max((text for text in texts if text.has_image), key=lambda text: text.tokens, default=None)
        if longest is None or not isinstance(method, Costed):
            return
        taken = method.columns(longest.tokens, training=True)
        if taken > context:
            raise UserError(
                f"--set max_length={plan.recipe.max_length}: {plan.label} reads training example {longest.id!r} as "
                f"{taken} tokens, but {self.spec.display} reads at most {context}; give a smaller number"
            )

    def _require_positions(self, plan: RunPlan, method: object, context: int) -> None:
        """Check that the longest prompt and the longest text behind it fit into the language model's context.

        Args:
            plan: the run.
            method: the method on the meta device, which may insert tokens; None for the oracle.
            context: number of positions of the language model.

        Raises:
            UserError: they do not.
        """
        decoding = self.task.decoding(plan.recipe, described=plan.is_oracle)
        limit = plan.recipe.max_length
        if _columns(method, limit) + decoding.new_tokens <= context:
            return
        longest, tokens = self._longest_prompt(limit, tuple(decoding.prompts))
        taken = _columns(method, tokens)
        if taken + decoding.new_tokens <= context:
            return
        fixed = not decoding.is_text or plan.recipe.protocol == "published" or taken >= context
        option = f"max_new_tokens={decoding.new_tokens}" if decoding.is_text else f"max_length={limit}"
        more = f", so {decoding.new_tokens} more do not fit" if decoding.new_tokens else ""
        raise UserError(
            f"--set {option}: {plan.label} reads the prompt of {longest!r} as {taken} tokens{more}: "
            f"{self.spec.display} reads at most {context}; give "
            + ("a smaller --set max_length, which cuts prompts" if fixed else f"at most {context - taken}")
        )


def _columns(method: object, tokens: int) -> int:
    """Return the number of tokens that the language model reads of a prompt, with those that the method inserts."""
    return method.columns(tokens, training=False) if isinstance(method, Costed) else tokens


def _training_texts(tokenizer: Any, limit: int, examples: Sequence[Example]) -> list[TrainingText]:
    """Return the lengths of the training examples, cut at `limit` tokens."""
    texts = []
    for example in examples:
        labels = tokenize_example(tokenizer, example.prompt, example.answer or "", limit).labels
        prompt = next((index for index, label in enumerate(labels) if label != IGNORED), len(labels))
        texts.append(TrainingText(example.id, example.image is not None, len(labels), prompt))
    return texts


def _kept(method: object, limit: int, has_image: bool) -> int:
    """Return how many tokens of a training text a method keeps that cuts sequences by itself.

    Args:
        method: the method on the meta device.
        limit: most tokens of a text.
        has_image: whether the text has an image. What is inserted into one without is not known; it counts nothing, so
            that no more answers count as cut off than are.
    """
    if not isinstance(method, Costed):
        return limit
    kept = method.columns(limit, training=True)
    return min(limit, kept - (_columns(method, limit) - limit if has_image else 0))


def _longest_prompt(tokenizer: Any, limit: int, examples: Sequence[Example]) -> tuple[str, int]:
    """Return the id of the example with the longest prompt, and its number of tokens; an empty id if there is none."""
    ids = {example.prompt: example.id for example in examples}
    lengths = {ids[text]: len(tokenize_prompt(tokenizer, text, limit).input_ids) for text in ids}
    longest = max(lengths, key=lambda name: lengths[name], default="")
    return longest, lengths.get(longest, 0)


def _some(ids: Sequence[str]) -> str:
    """Return the first three ids, and that there are more."""
    return ", ".join(map(repr, ids[:3])) + (", ..." if len(ids) > 3 else "")


def _cut_note(
    plan: RunPlan, setting: str, cut: Sequence[str], texts: Sequence[TrainingText], advice: str
) -> str | None:
    """Return a line about the training examples whose whole answer a setting cuts off; None if there is none.

    Args:
        plan: the run.
        setting: the setting and its value.
        cut: ids of these examples.
        texts: all training texts.
        advice: what to do where every answer is cut off.

    Raises:
        UserError: every answer is cut off.
    """
    if not cut:
        return None
    if len(cut) == len(texts):
        raise UserError(f"--set {setting}: cuts off every answer, that of training example {cut[0]!r} first; {advice}")
    return (
        f"{plan.label}: --set {setting} cuts off the whole answer of {len(cut)} of {len(texts)} training examples, "
        f"{_some(cut)}; nothing is learned from them"
    )
