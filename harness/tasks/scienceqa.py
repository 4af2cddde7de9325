"""ScienceQA: train on one split, answer the test split, nine columns."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from harness.config.recipes import TrainRecipe
from harness.data.collate import Collator, Example
from harness.data.images import ImagePreprocessor
from harness.data.jsonio import read_json
from harness.data.mini.build import ensure_mini
from harness.data.problem import Problem
from harness.data.prompts import Prompt, build_prompt
from harness.data.scienceqa import load_scienceqa
from harness.errors import UserError
from harness.evaluation.choices import answer_problems
from harness.evaluation.scienceqa_metrics import score_scienceqa
from harness.records import Data, Metric, ParseFailures
from harness.tasks import DataOptions, Evaluation, OnProgress, data_section


class ScienceQATask:
    """ScienceQA, real or procedural; see `harness.tasks.Task`.

    Raises:
        UserError: the first thing that is wrong with the data, by record and field.
    """

    name = "scienceqa"

    def __init__(self, options: DataOptions) -> None:
        self.options = options
        root = ensure_mini() if options.root is None else options.root
        self.has_captions = (root / "captions.json").exists()
        loaded = load_scienceqa(
            root,
            limit=options.limit,
            captions=self.has_captions,
            full=options.full,
            skip_bad_images=options.skip_bad_images,
        )
        self.set = loaded.checked(options.skip_bad_images)

    def data(self, recipe: TrainRecipe) -> Data:
        """The record's data section."""
        return data_section(self.set, self.options, recipe.prompt_format)

    def train_examples(self, recipe: TrainRecipe) -> list[Example]:
        """Prompt, answer and image of every training problem."""
        problems = self.set.samples("train")
        prompts = self._prompts(problems, recipe)
        return [Example(p.qid, q.prompt, q.answer, p.image) for p, q in zip(problems, prompts, strict=True)]

    def evaluation_size(self, recipe: TrainRecipe) -> int:
        """Problems of the evaluation split."""
        return len(self.set.samples(recipe.eval_split))

    def evaluate(
        self, model: Any, recipe: TrainRecipe, preprocessor: ImagePreprocessor, on_progress: OnProgress
    ) -> Evaluation:
        """Answer and score the evaluation split."""
        return self._evaluate(model, self.set.samples(recipe.eval_split), recipe, preprocessor, on_progress)

    def evaluate_oracle(
        self, model: Any, recipe: TrainRecipe, preprocessor: ImagePreprocessor, on_progress: OnProgress
    ) -> Evaluation:
        """The same with each image replaced by its scene in words, behind the hint."""
        scenes = self._scenes(recipe)
        told = [
            replace(p, hint=f"{p.hint} {scenes[p.qid]}".strip(), image=None) if p.image else p
            for p in self.set.samples(recipe.eval_split)
        ]
        return self._evaluate(model, told, recipe, preprocessor, on_progress)

    def require_oracle(self, recipe: TrainRecipe) -> None:
        """Every image of the evaluation split must have its scene in words."""
        self._scenes(recipe)

    def _scenes(self, recipe: TrainRecipe) -> dict[str, str]:
        path = self.set.root / "scenes.json"
        if not path.exists():
            raise UserError(f"{path}: not there; the oracle needs every image in words: run it on the procedural set")
        scenes = read_json(path)
        for problem in self.set.samples(recipe.eval_split):
            if problem.image and not (isinstance(scenes, dict) and isinstance(scenes.get(problem.qid), str)):
                raise UserError(f"{path}: problem {problem.qid}: its image is not told in words")
        return scenes

    def _prompts(self, problems: Sequence[Problem], recipe: TrainRecipe) -> list[Prompt]:
        if recipe.use_caption and not self.has_captions:
            raise UserError(f"--set use_caption: {self.set.root} has no captions.json; leave it false")
        return [build_prompt(p, recipe.prompt_format, recipe.use_caption) for p in problems]

    def _evaluate(
        self,
        model: Any,
        asked: Sequence[Problem],
        recipe: TrainRecipe,
        preprocessor: ImagePreprocessor,
        on_progress: OnProgress,
    ) -> Evaluation:
        started = time.perf_counter()
        collator = Collator(model.backbone.tokenizer, preprocessor, recipe.max_length, padding_side="left")
        prompts = self._prompts(asked, recipe)
        rows = answer_problems(
            model, asked, prompts, collator, recipe.eval_batch_size, model.backbone.device, on_progress
        )
        decoded = time.perf_counter()
        scores = score_scienceqa(self.set.samples(recipe.eval_split), {row["qid"]: row["choice"] for row in rows})
        metrics = {
            column: Metric(value=score.value, n=score.n, stderr=score.stderr, reason=score.reason)
            for column, score in scores.items()
        }
        failures = ParseFailures(count=scores["Avg"].failures, n=len(rows))
        return Evaluation(
            metrics,
            failures,
            collator.truncated,
            rows,
            eval_s=decoded - started,
            scoring_s=time.perf_counter() - decoded,
        )
