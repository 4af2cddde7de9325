"""The card of a trained adapter, made from its record."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from harness.data.huggingface import DATASET
from harness.escape import markdown, text_table
from harness.records import Record
from harness.report.parts import Part, parts
from harness.report.selection import hardware, is_official, remarks_on
from harness.sharing.upload import LIBRARY
from harness.tasks.facts import task_facts

RECORD_FILE = "record.json"
"""The record of the run, beside the adapter on the hub."""
_PROTOCOLS = {
    "uniform": "prompts, decoder and reading of answers are the same for every method",
    "published": "prompts, decoder and reading of answers are those of the method's own code",
}


@dataclass(frozen=True)
class Base:
    """The frozen backbone of an adapter, as its card names it.

    Attributes:
        repo: id of the language model on the hub; None if it has none.
        licence: its licence as the hub writes it; None if it is not known.
        described: what it is, where it comes from, and its licence, as sentences in Markdown.
        options: options of `predict` that say where it is, such as `--llm FOLDER`; empty where its name does.
    """

    repo: str | None
    licence: str | None
    described: str
    options: str = ""


def model_card(record: Record, method: Any, base: Base, repo: str, remarks: Sequence[str] = ()) -> ModelCard:
    """Return the card of an adapter.

    Args:
        record: the record of its run.
        method: the class of its method, which satisfies `methods.base.Method`.
        base: its backbone.
        repo: id of the repository in which the card will be.
        remarks: the sentences of `remarks.json` on the run.
    """
    facts = task_facts(record.task)
    kind = "visual-question-answering" if facts.answers else "image-to-text"
    data = ModelCardData(
        base_model=base.repo,
        license=base.licence,
        library_name=LIBRARY,
        pipeline_tag=kind,
        datasets=[DATASET] if _is_scienceqa(record) else None,
        tags=[LIBRARY, "vision-language", "adapter", record.label, record.task, record.model],
        model_name=repo.partition("/")[2],
        eval_results=list(_eval_results(record, kind)) or None,
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_text(record, method, base, repo, remarks)}")


def _is_scienceqa(record: Record) -> bool:
    return record.task == "scienceqa" and is_official(record)


def _eval_results(record: Record, kind: str) -> Iterator[EvalResult]:
    answered = task_facts(record.task).answers is not None
    for name, metric in record.metrics.items():
        if metric.value is not None:
            yield EvalResult(
                task_type=kind,
                dataset_type=DATASET if _is_scienceqa(record) else record.data.name,
                dataset_name=record.data.name,
                dataset_split=record.eval_split,
                metric_type="accuracy" if answered else name.partition("-")[0].lower(),
                metric_name=name,
                metric_value=round(metric.value, 4),
            )


def _text(record: Record, method: Any, base: Base, repo: str, remarks: Sequence[str]) -> str:
    source = method.source
    title = f"{method.title}{f' ({record.variant})' if record.variant else ''}"
    sections = [
        f"# {markdown(title)} on {markdown(record.model)}\n\n"
        f"An adapter of a vision-language model: what the method {markdown(method.title)} trains, without the frozen "
        f"backbone. {markdown(title)} is from {markdown(source.paper)} (<{source.url}>): {markdown(source.summary)}. "
        f"It was trained and scored by {LIBRARY}, a reproducibility benchmark.\n\n{_facts(record, base)}",
        f"## How to use it\n\n{_usage(record, base, repo)}",
        f"## What was measured\n\n{_measured(record)}",
        "## What these numbers cannot tell\n\n" + "\n".join(f"- {line}" for line in _limits(record, remarks)),
        f"## The run\n\n`{RECORD_FILE}` is the whole record. `python -m harness records config {RECORD_FILE}` makes a "
        f"settings file of it for `run --config`, and `python -m harness verify {RECORD_FILE}` makes the run again and "
        "compares the scores.\n",
        *(f"### {part.title}\n\n{_table(part)}" for part in parts(record)),
    ]
    return "\n\n".join(section.rstrip() for section in sections) + "\n"


def _table(part: Part) -> str:
    return text_table([(f"`{path}`", value) for path, value in part.fields], ("Field", "Value"))


def _facts(record: Record, base: Base) -> str:
    data, parameters = record.data, record.parameters
    sizes = ", ".join(f"{size:,} {split}" for split, size in data.split_sizes.items())
    epochs = f", {record.epochs:g} epochs" if record.epochs is not None else ""
    rows = [
        ("method", f"`{record.label}`"),
        ("backbone", base.described),
        ("task and data", f"`{record.task}`, data set `{data.name}` ({sizes})"),
        ("protocol", f"`{record.protocol}`: {_PROTOCOLS.get(record.protocol, 'of another version')}"),
        ("seed", str(record.seed)),
        ("trained parameters", f"{parameters.trainable:,} of {parameters.total:,}" if parameters else "not recorded"),
        ("training", "not recorded" if record.steps is None else f"{record.steps:,} optimiser steps{epochs}"),
        ("trained on", hardware(record)),
    ]
    return text_table(rows, ("", ""))


def _usage(record: Record, base: Base, repo: str) -> str:
    name = repo.partition("/")[2]
    asks = task_facts(record.task).answers is not None
    question = " --question 'Which is red?' --choices 'the circle,the square'" if asks else ""
    options = f" {base.options}" if base.options else ""
    arguments = '"Which is red?", "picture.png", ["the circle", "the square"]' if asks else 'image="picture.png"'
    return (
        f"With {LIBRARY} installed:\n\n```sh\npython -m harness pull {repo}\n"
        f"python -m harness predict --adapter {name}{options} --image picture.png{question}\n```\n\n"
        f'```python\nimport harness\n\nadapter = harness.load_adapter(harness.pull("{repo}"))\n'
        f"print(adapter.answer({arguments}).text)\n```"
    )


def _measured(record: Record) -> str:
    rows = [
        (
            name,
            "n/a" if metric.value is None else f"{metric.value:.2f}",
            "n/a" if metric.stderr is None else f"{metric.stderr:.2f}",
            f"{metric.n:,}",
            metric.reason or "",
        )
        for name, metric in record.metrics.items()
    ]
    table = text_table(rows, ("column", "value", "standard error", "n", "note"))
    unit = "Accuracy in percent" if task_facts(record.task).answers else "Scores x 100"
    return f"{unit} on the split `{record.eval_split}` of `{record.data.name}`.\n\n{table}"


def _limits(record: Record, remarks: Sequence[str]) -> Iterator[str]:
    """Yield what the numbers of a record do not show, as sentences in Markdown."""
    yield (
        "This is one run with one seed. Seeds may differ as much as methods do, and the standard error holds only the "
        "chance of which samples were asked. `python -m harness compare` compares methods over seeds."
    )
    if record.backbone.weights == "shipped":
        yield (
            "The backbone is the small one that comes with the project. It knows nothing but generated pictures and "
            "texts, so the numbers do not say what a large model would score."
        )
    for line in (*remarks_on(record), *remarks):
        yield markdown(line)
    if record.tuning:
        yield "The settings were chosen as `tuning` below says. Others may suit another model or other data better."
    yield f"`{RECORD_FILE}` is what the uploader's machine wrote; nobody else has checked it."
