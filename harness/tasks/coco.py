"""COCO Captions: every caption of the training images is an example; one caption an image is decoded and scored.

The prompt is the one that the captioning demo of LLaMA-Adapter (Zhang et al. 2023, version 1, linked from
https://github.com/OpenGVLab/LLaMA-Adapter) gives to `caption_generate`; the paper at hand does not print its own. The
caption follows it without a space, as answers do in `harness.data.prompts`. Scores are those of the COCO server, see
`harness.evaluation.caption_metrics`.
"""

import hashlib
import time
from typing import Any, NoReturn

from harness.config.recipes import CaptionRecipe
from harness.data.coco import load_coco
from harness.data.collate import Collator, Example
from harness.data.images import ImagePreprocessor
from harness.data.mini.captions import ensure_captions
from harness.errors import UserError
from harness.evaluation.caption_metrics import require_tokenizer, score_captions
from harness.evaluation.decode import Search, decode_texts
from harness.records import Data, Metric
from harness.tasks import DataOptions, Evaluation, OnProgress, data_section
from harness.tasks.samples import SAMPLES, Shown

CAPTION_PROMPT = "Generate caption of this image :"
RUN_METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "CIDEr")
"""What a run is scored by: enough for the tables. The slower ones come from its predictions by `score coco`."""


class CocoTask:
    """Captions in Karpathy's form, real or procedural; see `harness.tasks.Task`.

    Raises:
        UserError: the first thing that is wrong with the data, by image and field; or there is no tokenizer to score
            captions with, which is better known before training.
    """

    name = "coco"

    def __init__(self, options: DataOptions) -> None:
        require_tokenizer()
        self.options = options
        root = ensure_captions() if options.root is None else options.root
        loaded = load_coco(root, limit=options.limit, full=options.full, skip_bad_images=options.skip_bad_images)
        self.set = loaded.checked(options.skip_bad_images)

    def data(self, recipe: CaptionRecipe) -> Data:
        """The record's data section."""
        return data_section(self.set, self.options)

    def train_examples(self, recipe: CaptionRecipe) -> list[Example]:
        """Every caption of every training image, so that an epoch shows an image as often as it has captions."""
        return [
            Example(f"{image.qid}.{number}", CAPTION_PROMPT, caption, image.image)
            for image in self.set.samples("train")
            for number, caption in enumerate(image.captions)
        ]

    def evaluation_size(self, recipe: CaptionRecipe) -> int:
        """Images of the evaluation split."""
        return len(self.set.samples(recipe.eval_split))

    def evaluate(
        self, model: Any, recipe: CaptionRecipe, preprocessor: ImagePreprocessor, on_progress: OnProgress
    ) -> Evaluation:
        """Caption and score the evaluation split; its first images are shown."""
        started = time.perf_counter()
        images = self.set.samples(recipe.eval_split)
        collator = Collator(model.backbone.tokenizer, preprocessor, recipe.max_length, padding_side="left")
        examples = [Example(image.qid, CAPTION_PROMPT, None, image.image) for image in images]
        texts = decode_texts(model, examples, collator, recipe.eval_batch_size, search_of(recipe), on_progress)
        decoded = time.perf_counter()
        captions = {image.qid: text for image, (text, _) in zip(images, texts, strict=True)}
        scores, _ = score_captions({image.qid: image.captions for image in images}, captions, RUN_METRICS)
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
        metrics = {name: Metric(**score.as_dict()) for name, score in scores.items()}
        shown = [Shown(image.qid, image.image, captions[image.qid], image.captions) for image in images[:SAMPLES]]
        return Evaluation(
            metrics,
            None,
            collator.truncated,
            rows,
            shown,
            eval_s=decoded - started,
            scoring_s=time.perf_counter() - decoded,
        )

    def require_oracle(self, recipe: CaptionRecipe) -> NoReturn:
        """There is none."""
        raise UserError("--methods oracle: an image told in words is a caption already; give --task scienceqa")

    def evaluate_oracle(
        self, model: Any, recipe: CaptionRecipe, preprocessor: ImagePreprocessor, on_progress: OnProgress
    ) -> NoReturn:
        """There is none."""
        self.require_oracle(recipe)


def search_of(recipe: CaptionRecipe) -> Search:
    """The decoder's settings in a recipe."""
    return Search(recipe.max_new_tokens, recipe.beams, recipe.length_penalty)
