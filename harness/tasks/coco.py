"""COCO Captions: train on every caption of every training image, then decode and score one caption per test image.

The prompt is the one that the captioning demo of LLaMA-Adapter (Zhang et al. 2023, version 1, linked from
https://github.com/OpenGVLab/LLaMA-Adapter) gives to `caption_generate`; the benchmarked paper does not print its own.
The caption follows the prompt without a space, as answers do in `harness.data.prompts`. The scores are those of the
COCO server, see `harness.evaluation.caption_metrics`.
"""

import hashlib
import time
from dataclasses import replace
from typing import NoReturn

from harness.config.recipe import CaptionRecipe, TrainRecipe
from harness.data.coco import load_coco
from harness.data.collate import Collator, Example
from harness.data.images import ImagePreprocessor
from harness.data.loading import Loading
from harness.data.mini.captions import ensure_captions
from harness.data.prompts import Tokenizer
from harness.errors import UserError
from harness.evaluation.answer_log import AnswerLog
from harness.evaluation.caption_metrics import check_tokenizer, score_captions
from harness.evaluation.decode import Search, decode_texts
from harness.evaluation.model import EvaluatedModel
from harness.records import Data
from harness.tasks.contract import DataOptions, Decoding, Evaluation, OnProgress, data_section, keeping
from harness.tasks.facts import TASKS
from harness.tasks.samples import SAMPLES

CAPTION_PROMPT = "Generate caption of this image :"


class CocoTask:
    """Captions in Karpathy's format, real or generated; see `harness.tasks.contract.Task`.

    Args:
        options: which data to read.

    Raises:
        UserError: the data has an error (the message names the image and the field), or the tokenizer for scoring does
            not run. Both are checked here so that they are reported before training.
    """

    name = "coco"

    def __init__(self, options: DataOptions) -> None:
        check_tokenizer()
        self.options = options
        root = ensure_captions() if options.root is None else options.root
        with options.reading(root):
            loaded = load_coco(root, limit=options.limit, full=options.full, skip_bad_images=options.skip_bad_images)
            self.set = loaded.checked(options.skip_bad_images, options.say)

    def data(self, recipe: TrainRecipe) -> Data:
        """Return the `data` section of the record."""
        return data_section(self.set, self.options)

    def train_examples(self, recipe: TrainRecipe) -> list[Example]:
        """Return one example per caption, so that an epoch shows an image as often as it has captions."""
        return [
            Example(f"{image.qid}.{number}", CAPTION_PROMPT, caption, image.image)
            for image in self.set.samples("train")
            for number, caption in enumerate(image.captions)
        ]

    def evaluation_size(self, recipe: TrainRecipe) -> int:
        """Return the number of images in the evaluation split."""
        return len(self.set.samples(recipe.eval_split))

    def pictured(self, recipe: TrainRecipe) -> list[Example]:
        """Return all images of the evaluation split."""
        images = self.set.samples(recipe.eval_split)
        return [Example(image.qid, CAPTION_PROMPT, None, image.image) for image in images]

    def require_answerable(self, recipe: TrainRecipe, tokenizer: Tokenizer) -> None:
        """Do nothing: every text is a caption."""

    def decoding(self, recipe: TrainRecipe, *, described: bool = False) -> Decoding:
        """Return the prompt of every image, and how long a caption may be."""
        return Decoding(self.pictured(recipe), search_of(recipe).max_new_tokens)

    def evaluate(
        self,
        model: EvaluatedModel,
        recipe: TrainRecipe,
        preprocessor: ImagePreprocessor,
        on_progress: OnProgress,
        log: AnswerLog | None = None,
        loading: Loading | None = None,
    ) -> Evaluation:
        """Caption and score the evaluation split. The first images and their captions are kept for a reader."""
        log = log or AnswerLog()
        started = time.perf_counter()
        images = self.set.samples(recipe.eval_split)
        collator = Collator(model.backbone.tokenizer, preprocessor, recipe.max_length, padding_side="left")
        examples = self.pictured(recipe)
        search = search_of(recipe)
        texts = decode_texts(model, examples, collator, recipe.eval_batch_size, search, on_progress, log, loading)
        decoded = time.perf_counter()
        captions = {image.qid: text for image, (text, _) in zip(images, texts, strict=True)}
        references = {image.qid: image.captions for image in images}
        rows = [
            {
                "image_id": image.qid,
                "prompt_sha256": hashlib.sha256(CAPTION_PROMPT.encode()).hexdigest(),
                "caption": text,
                "tokens": len(hypothesis.tokens),
                "finished": hypothesis.finished,
                "references": list(image.captions),
            }
            for image, (text, hypothesis) in zip(images, texts, strict=True)
        ]
        shown = [(image, captions[image.qid]) for image in images[:SAMPLES]]
        answered = Evaluation({}, None, collator.truncated, rows, shown=shown, eval_s=log.earlier_s + decoded - started)
        with keeping(answered):
            metrics, _ = score_captions(references, captions, TASKS[self.name].columns)
        return replace(answered, metrics=metrics, scoring_s=time.perf_counter() - decoded)

    def require_validation(self, recipe: TrainRecipe) -> NoReturn:
        """Raise UserError: captions are neither right nor wrong."""
        raise UserError("--eval-every: captions are neither right nor wrong; leave it out")

    def validate(
        self, model: EvaluatedModel, recipe: TrainRecipe, preprocessor: ImagePreprocessor, most: int
    ) -> NoReturn:
        """Raise UserError: captions are neither right nor wrong."""
        self.require_validation(recipe)

    def require_oracle(self, recipe: TrainRecipe) -> NoReturn:
        """Raise UserError: captions have no oracle."""
        raise UserError(
            "--methods oracle: an image described in words is a caption already; use --task scienceqa for the oracle"
        )

    def descriptions_hash(self) -> None:
        """Return None: captions have no oracle."""

    def evaluate_oracle(
        self,
        model: EvaluatedModel,
        recipe: TrainRecipe,
        preprocessor: ImagePreprocessor,
        on_progress: OnProgress,
        log: AnswerLog | None = None,
        loading: Loading | None = None,
    ) -> NoReturn:
        """Raise UserError: captions have no oracle."""
        self.require_oracle(recipe)


def search_of(recipe: TrainRecipe) -> Search:
    """Return the decoder's settings in a recipe of this task."""
    assert isinstance(recipe, CaptionRecipe), "runs on captions have a CaptionRecipe"
    return Search(recipe.max_new_tokens, recipe.beams, recipe.length_penalty)
