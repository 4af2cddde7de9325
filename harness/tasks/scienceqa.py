"""ScienceQA: train on the training split, answer the problems of the test split, and score them in nine columns."""

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.config.recipe import ChoiceRecipe, TrainRecipe
from harness.data.collate import Collator, Example
from harness.data.images import ImagePreprocessor
from harness.data.jsonio import read_json
from harness.data.loading import Loading
from harness.data.mini.build import ensure_mini
from harness.data.problem import Problem
from harness.data.prompts import Prompt, Tokenizer, build_prompt, check_format
from harness.data.scienceqa import load_scienceqa
from harness.errors import UserError
from harness.evaluation.answer_log import AnswerLog
from harness.evaluation.choices import Answering, answer_problems, unanswerable
from harness.evaluation.model import EvaluatedModel
from harness.evaluation.scienceqa_metrics import columns_of, score_scienceqa
from harness.records import Data, ParseFailures
from harness.tasks.contract import DataOptions, Decoding, Evaluation, OnProgress, data_section, keeping
from harness.tasks.samples import chosen_questions

SCENES = "scenes.json"
"""The file with the scene of each problem that has an image, in words."""


class ScienceQATask:
    """ScienceQA, real or generated; see `harness.tasks.contract.Task`.

    Args:
        options: which data to read.

    Raises:
        UserError: the data has an error; the message names the record and the field.
    """

    name = "scienceqa"

    def __init__(self, options: DataOptions) -> None:
        self.options = options
        root = ensure_mini() if options.root is None else options.root
        self.has_captions = (root / "captions.json").exists()
        with options.reading(root):
            loaded = load_scienceqa(
                root,
                limit=options.limit,
                captions=self.has_captions,
                full=options.full,
                skip_bad_images=options.skip_bad_images,
            )
            self.set = loaded.checked(options.skip_bad_images, options.say)

    def data(self, recipe: TrainRecipe) -> Data:
        """Return the `data` section of the record."""
        return data_section(self.set, self.options, choices_of(recipe).prompt_format)

    def train_examples(self, recipe: TrainRecipe) -> list[Example]:
        """Return prompt, answer and image of every training problem."""
        problems = self.set.samples("train")
        own = choices_of(recipe)
        prompts = self._prompts(problems, "train", own.prompt_format, own.use_caption, "--set use_caption")
        return [Example(p.qid, q.prompt, q.answer, p.image) for p, q in zip(problems, prompts, strict=True)]

    def evaluation_size(self, recipe: TrainRecipe) -> int:
        """Return the number of problems in the evaluation split."""
        return len(self.set.samples(recipe.eval_split))

    def pictured(self, recipe: TrainRecipe) -> list[Example]:
        """Return the problems of the evaluation split that have an image."""
        problems = [problem for problem in self.set.samples(recipe.eval_split) if problem.image is not None]
        return [Example(problem.qid, problem.question, None, problem.image) for problem in problems]

    def require_answerable(self, recipe: TrainRecipe, tokenizer: Tokenizer) -> None:
        """Check that the prompts can be made, and that the language model's tokenizer suits the scoring."""
        own = choices_of(recipe)
        check_format(own.eval_prompt_format)
        problems = self.set.samples(recipe.eval_split)
        for prompt in self._asked(problems[:1], own, recipe.eval_split):
            most = max(len(problem.choices) for problem in problems)
            if reason := unanswerable(tokenizer, prompt, most, own.scoring):
                others = "generate" if own.scoring == "likelihood" else "generate or likelihood"
                first = "--protocol uniform with " if own.protocol == "published" else ""
                raise UserError(f"--set scoring={own.scoring}: {reason}; give {first}--set scoring={others}")

    def decoding(self, recipe: TrainRecipe, *, described: bool = False) -> Decoding:
        """Return the prompts, and how long an answer may be; a letter is not read again."""
        own = choices_of(recipe)
        problems = self._described(recipe) if described else self.set.samples(recipe.eval_split)
        prompts = self._asked(problems, own, recipe.eval_split)
        how = answering(own)
        examples = [Example(p.qid, how.asked(q), None, p.image) for p, q in zip(problems, prompts, strict=True)]
        return Decoding(examples, how.tokens_read, own.scoring == "generate")

    def evaluate(
        self,
        model: EvaluatedModel,
        recipe: TrainRecipe,
        preprocessor: ImagePreprocessor,
        on_progress: OnProgress,
        log: AnswerLog | None = None,
        loading: Loading | None = None,
    ) -> Evaluation:
        """Answer and score the evaluation split."""
        return self._evaluate(
            model, self.set.samples(recipe.eval_split), recipe, preprocessor, on_progress, log, loading
        )

    def require_validation(self, recipe: TrainRecipe) -> None:
        """Check that the validation split has a problem, and that its prompts can be made."""
        if not self.set.splits["val"]:
            raise UserError(
                f"--eval-every: {self.set.root}: split 'val' has no usable problem; add one, or leave it out"
            )
        self._asked(self.set.samples("val")[:1], choices_of(recipe), "val")

    def validate(
        self, model: EvaluatedModel, recipe: TrainRecipe, preprocessor: ImagePreprocessor, most: int
    ) -> tuple[float, int]:
        """Return the accuracy on a sample of the validation split, and the size of the sample."""
        split = self.set.samples("val")
        asked = random.Random(0).sample(split, min(most, len(split)))
        collator = Collator(model.backbone.tokenizer, preprocessor, recipe.max_length, padding_side="left")
        own = choices_of(recipe)
        prompts = self._asked(asked, own, "val")
        rows = answer_problems(model, asked, prompts, collator, recipe.eval_batch_size, answering(own))
        return 100 * sum(row["choice"] == row["gold"] for row in rows) / len(rows), len(rows)

    def evaluate_oracle(
        self,
        model: EvaluatedModel,
        recipe: TrainRecipe,
        preprocessor: ImagePreprocessor,
        on_progress: OnProgress,
        log: AnswerLog | None = None,
        loading: Loading | None = None,
    ) -> Evaluation:
        """Answer and score the evaluation split with each image replaced by its scene in words, after the hint."""
        return self._evaluate(model, self._described(recipe), recipe, preprocessor, on_progress, log, loading)

    def require_oracle(self, recipe: TrainRecipe) -> None:
        """Check that every image of the evaluation split has its scene in words."""
        self._scenes(recipe)

    def descriptions_hash(self) -> str | None:
        """Return the hash of the scenes in a user's folder. Those of the generated set follow from its other files."""
        if self.options.root is None:
            return None
        hashes: dict[str, str] = {}
        read_json(self.set.root / SCENES, hashes)
        return hashes[SCENES]

    def _described(self, recipe: TrainRecipe) -> list[Problem]:
        """Return the evaluation split with each image replaced by its scene in words."""
        scenes = self._scenes(recipe)
        return [
            replace(p, hint=f"{p.hint} {scenes[p.qid]}".strip(), image=None) if p.image else p
            for p in self.set.samples(recipe.eval_split)
        ]

    def _scenes(self, recipe: TrainRecipe) -> dict[str, str]:
        """Return the scene of every evaluated problem that has an image, by qid."""
        path = self.set.root / SCENES
        if not path.exists():
            raise UserError(f"{path}: missing; the oracle reads every image in words from it: leave the oracle out")
        found = read_json(path)
        pictured = [problem.qid for problem in self.set.samples(recipe.eval_split) if problem.image]
        return {qid: _scene(path, found, qid) for qid in pictured}

    def _asked(self, problems: Sequence[Problem], recipe: ChoiceRecipe, split: str) -> list[Prompt]:
        """Return the prompts with which problems of a split are asked."""
        option = "--protocol published" if recipe.protocol == "published" else "--set eval_use_caption"
        option = "--set use_caption" if recipe.use_caption else option
        return self._prompts(problems, split, recipe.eval_prompt_format, recipe.eval_use_caption, option)

    def _prompts(
        self, problems: Sequence[Problem], split: str, format: str, captions: bool, option: str
    ) -> list[Prompt]:
        if captions:
            self._require_captions(split, option)
        return [build_prompt(problem, format, captions) for problem in problems]

    def _require_captions(self, split: str, option: str) -> None:
        """Check that there are captions, and that they are those of a split: another copy has other ids.

        Args:
            split: the split.
            option: the option that asks for captions.

        Raises:
            UserError: there is no file of captions, or none of the split's images has a caption.
        """
        if not self.has_captions:
            raise UserError(f"{option}: {self.set.root} has no captions.json; add it, or leave the option out")
        pictured = [problem for problem in self.set.splits[split] if problem.image]
        if pictured and not any(problem.caption for problem in pictured):
            raise UserError(
                f"{option}: {self.set.root / 'captions.json'}: none of the {len(pictured)} problems with an image in "
                f"split {split!r} has a caption, {pictured[0].qid!r} first; give captions with the ids of "
                "problems.json, or leave the option out"
            )

    def _evaluate(
        self,
        model: EvaluatedModel,
        asked: Sequence[Problem],
        recipe: TrainRecipe,
        preprocessor: ImagePreprocessor,
        on_progress: OnProgress,
        log: AnswerLog | None,
        loading: Loading | None,
    ) -> Evaluation:
        log = log or AnswerLog()
        started = time.perf_counter()
        collator = Collator(model.backbone.tokenizer, preprocessor, recipe.max_length, padding_side="left")
        own = choices_of(recipe)
        prompts = self._asked(asked, own, recipe.eval_split)
        rows = answer_problems(
            model, asked, prompts, collator, recipe.eval_batch_size, answering(own), on_progress, log, loading
        )
        decoded = time.perf_counter()
        # Score the original problems: the oracle's copies have no image, but must still count in IMG.
        original = self.set.samples(recipe.eval_split)
        rows = [{**row, "columns": columns_of(problem)} for row, problem in zip(rows, original, strict=True)]
        answered = Evaluation(
            {},
            None,
            collator.truncated,
            rows,
            questions=chosen_questions(original),
            eval_s=log.earlier_s + decoded - started,
        )
        with keeping(answered):
            scores = score_scienceqa(original, {row["qid"]: row["choice"] for row in rows})
        # An answer that sampling replaced by a random choice could not be read either.
        unread = scores.unreadable["Avg"] + sum(row.get("guessed", False) for row in rows)
        failures = ParseFailures(count=unread, n=len(rows))
        return replace(answered, metrics=scores.metrics, failures=failures, scoring_s=time.perf_counter() - decoded)


def choices_of(recipe: TrainRecipe) -> ChoiceRecipe:
    """Return a recipe of this task as what it is."""
    assert isinstance(recipe, ChoiceRecipe), "runs on questions with options have a ChoiceRecipe"
    return recipe


def answering(recipe: ChoiceRecipe) -> Answering:
    """Return how a recipe answers questions and reads answers. Only the published protocol reads loosely."""
    loose = recipe.protocol == "published"
    return Answering(recipe.scoring, loose, recipe.max_new_tokens, recipe.sampling_seed)


def _scene(path: Path, scenes: object, qid: str) -> str:
    scene = scenes.get(qid) if isinstance(scenes, dict) else None
    if not isinstance(scene, str):
        raise UserError(f"{path}: problem {qid}: its image has no scene in words; add it, or leave out the oracle")
    return scene
