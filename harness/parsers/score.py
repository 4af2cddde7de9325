"""The subcommands of `score`."""

from pathlib import Path
from typing import Annotated

import typer

from harness.options import TextFormat, TextOutput
from harness.parsers.shown import epilog, print_markdown

score_app = typer.Typer(help="Score saved predictions.", no_args_is_help=True)


@score_app.command(
    "scienceqa",
    epilog=epilog(
        "python -m harness score scienceqa --problems problems.json --splits pid_splits.json "
        "--predictions answers.jsonl"
    ),
)
def score_scienceqa(
    problems: Annotated[Path, typer.Option(help="The benchmark's problems.json.")],
    splits: Annotated[Path, typer.Option(help="The benchmark's pid_splits.json.")],
    predictions: Annotated[
        Path,
        typer.Option(
            help="predictions.jsonl of a run, LLaVA's answers as lines or as one array, a JSON object {qid: index}, or "
            "a published results file."
        ),
    ],
    split: Annotated[str, typer.Option(help="Split to score.")] = "test",
    format: TextOutput = TextFormat.markdown,
) -> None:
    """Print the accuracy in the nine columns of the paper, with standard errors."""
    from harness.commands.score import scores_text
    from harness.evaluation.score_scienceqa import score_scienceqa_files

    scores = score_scienceqa_files(problems, splits, predictions, split)
    print_markdown(scores_text(scores, format.value), format.value)


@score_app.command(
    "coco",
    epilog=epilog(
        "python -m harness score coco --references dataset_coco.json --predictions captions.json --split test"
    ),
)
def score_coco(
    references: Annotated[
        Path,
        typer.Option(
            help="Karpathy's dataset_coco.json, COCO's annotations, a JSON object from image ids to lists of captions, "
            "or predictions.jsonl of a run."
        ),
    ],
    predictions: Annotated[
        Path,
        typer.Option(
            help="A COCO results file: a list of objects with image_id and caption; or predictions.jsonl of a run."
        ),
    ],
    split: Annotated[str, typer.Option(help="Split to score, if the references are Karpathy's.")] = "test",
    only_predicted: Annotated[
        bool, typer.Option("--only-predicted", help="Leave out images without a predicted caption instead of stopping.")
    ] = False,
    format: TextOutput = TextFormat.markdown,
) -> None:
    """Print BLEU, METEOR, ROUGE-L, CIDEr and SPICE x 100, with standard errors for all but METEOR."""
    from harness.commands.score import scores_text
    from harness.evaluation.score_coco import score_coco_files

    scores = score_coco_files(references, predictions, split, only_predicted=only_predicted)
    print_markdown(scores_text(scores, format.value), format.value)
