"""The vision tower: its features, random weights, and one clear line for a folder that cannot be used."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.backbone.loader import load_backbone
from harness.config.presets import BackboneSpec, resolve_spec
from tests.folders import CLIP_CONFIG
from tests.loading import RANDOM_META, SMALL, refuses


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_of_random_weights(dtype: torch.dtype) -> None:
    vision = load_backbone(SMALL, weights="random", dtype=dtype).vision
    features = vision.features(torch.randn(2, 3, 32, 32), [2, 4], normalize=True)
    assert [tuple(feature.shape) for feature in features] == [(2, 17, 32)] * 2
    assert all(torch.isfinite(feature).all() for feature in features)


@pytest.mark.parametrize("normalize", [False, True])
def test_stacked_features_are_the_features(normalize: bool) -> None:
    vision = load_backbone(SMALL, weights="random").vision
    images = torch.randn(2, 3, 32, 32)
    stacked = vision.stacked_features(images, [1, 3], normalize=normalize)
    torch.testing.assert_close(stacked, torch.stack(vision.features(images, [1, 3], normalize=normalize), dim=1))


def test_a_vision_tower_that_is_no_vit() -> None:
    refuses("--clip RN50: is not an open_clip vision transformer", resolve_spec("7b", clip="RN50"), **RANDOM_META)


def test_a_vision_tower_whose_last_norm_is_behind_a_pool() -> None:
    message = "--clip coca_ViT-B-32: its ln_post takes 512 values, but its blocks return 768"
    refuses(message, resolve_spec("7b", clip="coca_ViT-B-32"), **RANDOM_META)


@pytest.mark.parametrize("clip", ["ViT-B-32", "ViT-L-14-336-quickgelu:openai"])
def test_random_weights_need_no_weights_name(clip: str) -> None:
    backbone = load_backbone(resolve_spec("7b", clip=clip), **RANDOM_META)
    assert backbone.vision.num_patches == {"ViT-B-32": 49}.get(clip, 576)


def _no_clip_weights(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").unlink()


def _cut_clip_weights(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").write_bytes(b"not safetensors")


def _no_clip_config(folder: Path) -> None:
    (folder / "open_clip_config.json").unlink()


def _other_clip_sizes(folder: Path) -> None:
    config = {**CLIP_CONFIG, "vision_cfg": {**CLIP_CONFIG["vision_cfg"], "width": 40}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_no_clip_weights, "cannot be loaded"),
        (_cut_clip_weights, "its config describes 45,489 parameters, but its weights have 15 bytes"),
        (_other_clip_sizes, "cannot be loaded"),
        (_no_clip_config, "has no open_clip_config.json"),
    ],
)
def test_a_folder_that_is_no_vision_tower(
    harm: Callable[[Path], None], message: str, tmp_path: Path, small_clip: Path, spec: BackboneSpec
) -> None:
    folder = Path(shutil.copytree(small_clip, tmp_path / "clip"))
    harm(folder)
    refuses(f"--clip local-dir:{folder}: {message}", replace(spec, clip=f"local-dir:{folder}"))
