"""What a method shows of its inside on some of the evaluated images, where it offers that. Knows no method."""

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from harness.data.collate import Collator, Example
from harness.data.images import ImagePreprocessor
from harness.data.loading import Loading
from harness.evaluation.answer_log import AnswerLog
from harness.evaluation.batches import answer_in_batches
from harness.records import DiagnosticMatrix, Diagnostics
from harness.tasks.samples import spread
from methods.base import Batch, Diagnostic
from methods.tuned import TunedModel

MOST_IMAGES = 512
"""Number of images that are looked at, besides those of the samples whose values are kept. The standard error of a mean
over so many is less than a twentieth of the spread over the images."""
_DIGITS = 4
"""Significant digits of the values that are kept."""
_LONGEST_PROMPT = 8
"""Tokens that are kept of a prompt. No prompt is read here, but a batch has one."""


def looked_at(model: TunedModel, examples: Sequence[Example], kept: Collection[str]) -> list[Example]:
    """Return the samples that `diagnose` is given, in order: evenly spread ones and those that are kept.

    Args:
        model: the tuned model.
        examples: the samples of the evaluation split that have an image.
        kept: ids of the samples whose values are kept.

    Returns:
        The samples; none if the method shows nothing.
    """
    if not hasattr(model.method, "diagnostics"):
        return []
    chosen = {example.id for example in spread(examples, MOST_IMAGES)} | set(kept)
    return [example for example in examples if example.id in chosen]


@torch.no_grad()
def diagnose(
    model: TunedModel,
    examples: Sequence[Example],
    kept: Collection[str],
    preprocessor: ImagePreprocessor,
    batch_size: int,
    spec_hash: str,
    loading: Loading | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Diagnostics | None:
    """Encode images, and return the means of the method's diagnostics and their values for a few samples.

    Args:
        model: the tuned model.
        examples: samples as `looked_at` chooses them.
        kept: ids of the samples whose values are kept.
        preprocessor: image size and normalisation.
        batch_size: samples per forward pass.
        spec_hash: the run's hash.
        loading: how batches are prepared; None uses no workers.
        on_progress: called with the number of samples done.

    Returns:
        The diagnostics; None if there is no sample.

    Raises:
        UserError: an image cannot be read.
    """
    if not examples:
        return None
    model.eval()
    collator = Collator(model.backbone.tokenizer, preprocessor, _LONGEST_PROMPT, padding_side="left")
    shown: dict[str, Diagnostic] = {}

    def values(batch: Batch, ids: Sequence[str]) -> list[dict[str, Tensor]]:
        found = {item.name: item for item in model.method.diagnostics(model.encode(batch))}
        shown.update(found)
        matrices_BNM = {name: item.values_BNM.float().cpu() for name, item in found.items()}
        return [{name: of_batch[index] for name, of_batch in matrices_BNM.items()} for index in range(len(ids))]

    # Nothing is logged: after an interruption, encoding the images again is quick.
    answers = answer_in_batches(
        values, examples, collator, batch_size, model.backbone.device, on_progress, AnswerLog(), loading or Loading()
    )
    if not shown:
        return None
    return Diagnostics(
        spec_hash=spec_hash,
        images=len(examples),
        matrices=[
            DiagnosticMatrix(
                name=item.name,
                title=item.title,
                about=item.about,
                rows=item.rows,
                columns=item.columns,
                row_labels=list(item.row_labels),
                column_labels=list(item.column_labels),
                mean=_rounded(torch.stack([own[item.name] for own in answers]).mean(dim=0, dtype=torch.float64)),
                samples={
                    example.id: _rounded(own[item.name])
                    for example, own in zip(examples, answers, strict=True)
                    if example.id in kept
                },
            )
            for item in shown.values()
        ],
    )


def _rounded(matrix_NM: Tensor) -> list[list[float]]:
    return [[float(f"{value:.{_DIGITS}g}") for value in row] for row in matrix_NM.tolist()]
