"""One answer or one caption from a saved adapter.

Example:
    from harness.run.predict import load_adapter
    adapter = load_adapter("results/adapters/...")
    adapter.answer("which colour is the star?", image="a.png", choices=["red", "blue"])
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from harness.backbone.loader import Backbone, load_backbone
from harness.backbone.machine import DTYPES
from harness.config.lookup import named_method
from harness.config.presets import PRESETS, BackboneSpec, Quantize, base_model
from harness.config.recipe import CaptionRecipe, ChoiceRecipe, TrainRecipe, recipe_class
from harness.data.collate import Collator, Example
from harness.data.images import STATISTICS, ImagePreprocessor
from harness.data.problem import Problem
from harness.data.prompts import LETTERS, build_open_prompt, build_prompt
from harness.errors import UserError, first_error
from harness.evaluation.choices import answer_problems, unanswerable
from harness.evaluation.decode import Search, decode_texts
from harness.run.attach import meta_backbone
from harness.tasks.coco import CAPTION_PROMPT, search_of
from harness.tasks.scienceqa import answering
from methods import checkpoint
from methods.tuned import TunedModel

FREE_ANSWER = Search(max_new_tokens=64)
"""How a question without options is decoded: greedily, up to 64 tokens."""


class SavedBackbone(BaseModel):
    """The backbone that an adapter was trained on; `llm` and `clip` are None where its name says where it is.

    Attributes:
        model: name of the model, as in a record.
        llm, clip: language model and vision tower, as `--llm` and `--clip` name them.
        weight_hash: hash of the frozen weights.
        dtype: dtype of the frozen weights.
        quantize: how the language model is quantised; None if it is not.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str
    llm: str | None = None
    clip: str | None = None
    weight_hash: str | None
    dtype: Literal["float32", "bfloat16"]
    quantize: Quantize | None = None


class _Saved(BaseModel):
    """What a run saves besides the config of its method, see `harness.run.phases`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    backbone: SavedBackbone
    task: str
    train: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question.

    Attributes:
        text: the chosen option, or the decoded text where there are no options; empty where no option could be read.
        choice: index of the chosen option; None if there are no options or none could be read.
        raw: the decoded text.
    """

    text: str
    choice: int | None
    raw: str


class LoadedAdapter:
    """A tuned model that answers questions; `load_adapter` makes one.

    Args:
        model: the backbone with the method attached.
        task: the task that it was trained on.
        recipe: the recipe that it was trained with: prompt format, image normalisation and longest prompt.
    """

    def __init__(self, model: TunedModel, task: str, recipe: TrainRecipe) -> None:
        self.model, self.task, self.recipe = model, task, recipe
        mean, std = STATISTICS[recipe.image_statistics]
        preprocessor = ImagePreprocessor(model.backbone.vision.image_size, mean, std)
        self._collator = Collator(model.backbone.tokenizer, preprocessor, recipe.max_length, padding_side="left")

    def answer(
        self, question: str = "", image: str | Path | None = None, choices: Sequence[str] = (), hint: str = ""
    ) -> Answer:
        """Answer a question, or caption an image.

        Args:
            question: the question; empty for a caption of the image.
            image: an image file, if there is one.
            choices: two or more options to choose from; none for an answer in free text.
            hint: context of the question.

        Raises:
            UserError: there is neither question nor image, a hint has no question, the options cannot be used, the
                image cannot be read, or the prompt is too long.
        """
        path = None if image is None else Path(image)
        self._collator.cut.clear()
        found = self._choose(question, path, tuple(choices), hint) if choices else self._decode(question, path, hint)
        if self._collator.truncated:
            raise UserError(
                f"--question: longer than the {self.recipe.max_length} tokens of the adapter's recipe; shorten it"
            )
        return found

    def _choose(self, question: str, image: Path | None, choices: tuple[str, ...], hint: str) -> Answer:
        """Answer a question that has options."""
        if not question.strip():
            raise UserError("--question: missing; give the question that the options answer")
        if not 2 <= len(choices) <= len(LETTERS) or not all(choice.strip() for choice in choices):
            raise UserError(f"--choices: give 2 to {len(LETTERS)} options, none of them empty")
        problem = Problem("question", "test", question, choices, 0, hint=hint, image=image)
        # An adapter that was trained on captions is asked in the format that other adapters are asked in.
        asked = self.recipe if isinstance(self.recipe, ChoiceRecipe) else ChoiceRecipe.model_validate({})
        prompt = build_prompt(problem, asked.eval_prompt_format)
        if reason := unanswerable(self.model.backbone.tokenizer, prompt, len(choices), asked.scoring):
            raise UserError(f"--choices: {reason}; leave them out for an answer in words")
        # Published sampling replaces an answer that cannot be read by a random choice, which is no answer to a user.
        how = replace(answering(asked), sampling_seed=None)
        (row,) = answer_problems(self.model, [problem], [prompt], self._collator, 1, how)
        choice = row["choice"]
        return Answer("" if choice is None else choices[choice], choice, row["raw"])

    def _decode(self, question: str, image: Path | None, hint: str) -> Answer:
        """Answer a question in free text, or caption an image."""
        if not question.strip() and image is None:
            raise UserError("--question, --image: give at least one of them")
        if hint.strip() and not question.strip():
            raise UserError("--hint: is the context of a question, and there is none; give --question, or leave it out")
        if question.strip():
            problem = Problem("question", "test", question, (), 0, hint=hint)
            prompt = build_open_prompt(problem)
        else:
            prompt = CAPTION_PROMPT
        search = search_of(self.recipe) if isinstance(self.recipe, CaptionRecipe) else FREE_ANSWER
        ((text, _),) = decode_texts(self.model, [Example("question", prompt, None, image)], self._collator, 1, search)
        return Answer(text, None, text)


@dataclass(frozen=True)
class ReadAdapter:
    """What the files of an adapter say. Nothing of its backbone is loaded.

    Attributes:
        folder: its folder.
        method: the method's class, which satisfies `methods.base.Method`.
        config: the method's config.
        backbone: the backbone that it was trained on.
        task: the task that it was trained on.
        recipe: the recipe that it was trained with.
    """

    folder: Path
    method: Any
    config: Any
    backbone: SavedBackbone
    task: str
    recipe: TrainRecipe


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Raise what `methods.checkpoint` finds wrong with an adapter as a `UserError`."""
    try:
        yield
    except ValidationError as error:
        raise UserError(f"{folder / checkpoint.CONFIG_FILE}: {first_error(error)}") from error
    except ValueError as error:
        raise UserError(str(error)) from error


def read_adapter(folder: str | Path) -> ReadAdapter:
    """Read what an adapter is, and check its files as far as that needs no backbone.

    The shapes of the parameters are checked where the sizes of the backbone are known without its files.

    Args:
        folder: the adapter's folder.

    Raises:
        UserError: the adapter is incomplete, damaged or of an unknown method, or its backbone is a size that has no
            pretrained weights. Random weights of any other backbone are noticed only when it is loaded.
    """
    found = _read(Path(folder))
    _spec(found.folder, found.backbone)
    preset = PRESETS.get(base_model(found.backbone.model, found.backbone.quantize))
    with _explained(found.folder):
        checkpoint.tensor_shapes(found.folder)
    if preset is not None and (preset.shipped or preset.llm_config is not None):
        _check_shapes(found, preset)
    return found


def load_adapter(
    folder: str | Path, device: str = "cpu", llm: str | None = None, clip: str | None = None
) -> LoadedAdapter:
    """Load a saved adapter and the backbone that it was trained on.

    Args:
        folder: the adapter's folder, which a run writes as `RESULTS/adapters/TASK/MODEL/METHOD/seed…`.
        device: where the model goes.
        llm: where its language model is on this machine; None takes what the adapter names.
        clip: where its vision tower is, as `NAME[:WEIGHTS]` or `local-dir:FOLDER`; None takes what the adapter names.

    Raises:
        UserError: the adapter is incomplete or damaged, or its backbone is unavailable or has different weights now.
    """
    found = _read(Path(folder))
    spec = _spec(found.folder, found.backbone, llm, clip)
    _check_shapes(found, spec)  # before anything is allocated
    backbone = _backbone(found.folder, spec, found.backbone, device)
    with _explained(found.folder):
        method = found.method(backbone, found.config).to(backbone.device)
        checkpoint.load_adapter_state(found.folder, method)
    return LoadedAdapter(TunedModel(backbone, method).eval(), found.task, found.recipe)


def _read(folder: Path) -> ReadAdapter:
    """Read the config of an adapter."""
    with _explained(folder):
        saved = checkpoint.load_adapter(folder)
        extra = _Saved.model_validate(saved.extra)
        recipe = recipe_class(extra.task)(**extra.train)
        method = named_method(saved.method, f"{folder / checkpoint.CONFIG_FILE}: method")
        return ReadAdapter(folder, method, method.Config(**saved.config), extra.backbone, extra.task, recipe)


def _check_shapes(found: ReadAdapter, spec: BackboneSpec) -> None:
    """Check that the parameters of an adapter have the shapes that they have on a backbone of these sizes."""
    with _explained(found.folder):
        with torch.device("meta"):
            shapes = found.method(meta_backbone(spec, DTYPES[found.backbone.dtype]), found.config)
        checkpoint.check_adapter(found.folder, shapes)


def _spec(folder: Path, saved: SavedBackbone, llm: str | None = None, clip: str | None = None) -> BackboneSpec:
    """Return which backbone an adapter was trained on, and where it is."""
    spec = PRESETS.get(base_model(saved.model, saved.quantize))
    if spec is None or not spec.packaged or llm is not None or clip is not None:
        llm = llm or saved.llm or (spec.llm if spec else None)
        clip = clip or saved.clip or (spec.clip if spec else None)
        if llm is None or clip is None:
            raise UserError(f"{folder}: its backbone {saved.model!r} has no pretrained weights; give another adapter")
        spec = BackboneSpec(saved.model, llm, clip, None, None, display=Path(llm).name)
    return replace(spec, name=saved.model, like=spec.recipe, quantize=saved.quantize) if saved.quantize else spec


def _backbone(folder: Path, spec: BackboneSpec, saved: SavedBackbone, device: str) -> Backbone:
    """Load the backbone that an adapter was trained on, and check its weights."""
    backbone = load_backbone(spec, device=device, dtype=DTYPES[saved.dtype])
    if backbone.fingerprint() != saved.weight_hash:
        why = " (or --device is of another kind, where a model is quantised a little differently)"
        now = f"{spec.display} has now{why if saved.quantize else ''}"
        raise UserError(f"{folder}: was trained on other weights than {now}; train the adapter again")
    return backbone
