"""What a method shows of its inside on the evaluated images, where it offers that. Knows no method."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from harness.data.collate import Collator, Example
from harness.data.images import ImagePreprocessor
from harness.data.loading import Loading, prepared_batches
from harness.records import DiagnosticMatrix, Diagnostics
from methods.base import Batch, Diagnostic
from methods.tuned import TunedModel

_DIGITS = 4
"""Significant digits of the values that are kept."""
_LONGEST_PROMPT = 8
"""Tokens that are kept of a prompt. No prompt is read here, but a batch has one."""


@torch.no_grad()
def diagnose(
    model: TunedModel,
    examples: Sequence[Example],
    kept: Collection[str],
    preprocessor: ImagePreprocessor,
    batch_size: int,
    spec_hash: str,
    loading: Loading | None = None,
) -> Diagnostics | None:
    """Encode images, and return the means of the method's diagnostics and their values for a few samples.

    Args:
        model: the tuned model.
        examples: samples that all have an image.
        kept: ids of the samples whose values are kept.
        preprocessor: image size and normalisation.
        batch_size: samples per forward pass.
        spec_hash: the run's hash.
        loading: how batches are prepared; None uses no workers.

    Returns:
        The diagnostics; None if the method offers none, or if there is no sample.

    Raises:
        UserError: an image cannot be read.
    """
    if not examples or not hasattr(model.method, "diagnostics"):
        return None
    model.eval()
    collator = Collator(model.backbone.tokenizer, preprocessor, _LONGEST_PROMPT, padding_side="left")
    indices = range(len(examples))
    batches = [indices[start : start + batch_size] for start in range(0, len(examples), batch_size)]
    totals: dict[str, Tensor] = {}
    samples: dict[str, dict[str, Tensor]] = {}
    shown: list[Diagnostic] = []
    with prepared_batches(
        examples, batches, lambda chosen: Batch(**collator(chosen)), collator, loading or Loading()
    ) as prepared:
        for chosen, batch in zip(batches, prepared, strict=True):
            shown = model.method.diagnostics(model.encode(batch.to(model.backbone.device)))
            if not shown:
                return None
            for item in shown:
                values_BNM = item.values_BNM.double().cpu()
                totals[item.name] = totals.get(item.name, 0) + values_BNM.sum(dim=0)
                own = samples.setdefault(item.name, {})
                ids = [examples[index].id for index in chosen]
                own |= {name: matrix for name, matrix in zip(ids, values_BNM, strict=True) if name in kept}
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
                mean=_rounded(totals[item.name] / len(examples)),
                samples={name: _rounded(matrix) for name, matrix in samples[item.name].items()},
            )
            for item in shown
        ],
    )


def _rounded(matrix_NM: Tensor) -> list[list[float]]:
    return [[float(f"{value:.{_DIGITS}g}") for value in row] for row in matrix_NM.tolist()]
