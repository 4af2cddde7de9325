"""Backbones with fewer layers, and the estimate of the whole backbone from two depths."""

from harness.backbone.loader import load_backbone
from harness.config.presets import resolve_spec
from harness.cost.depth import estimate, whole_layers, with_layers
from tests.harness.cost.small_speed import sample


def test_a_backbone_at_its_own_depth_is_itself():
    spec = resolve_spec("7b")
    assert with_layers(spec, 32) is spec


def test_another_depth_is_another_model_of_the_same_width():
    shallow = with_layers(resolve_spec("7b"), 8)
    assert shallow.name == "7b-8-layers" and shallow.llm_config["num_hidden_layers"] == 8
    assert shallow.llm_config["intermediate_size"] == 11008


def test_a_part_knows_the_depth_of_the_whole():
    spec = resolve_spec("7b")
    shallow = with_layers(spec, 8)
    assert whole_layers(shallow) == whole_layers(resolve_spec("slice")) == 32 and whole_layers(spec) is None


def test_a_backbone_of_another_depth_can_be_loaded():
    tiny = load_backbone(with_layers(resolve_spec("tiny"), 4), weights="random", device="meta")
    assert tiny.num_layers == 4


def test_the_whole_is_estimated_from_two_depths():
    # The model takes 0.5 s and each layer 0.25 s more. In the last round the machine is three times slower.
    once = [sample(slow * (0.5 + 4 * 0.25)) for slow in (1, 1, 3)]
    twice = [sample(slow * (0.5 + 8 * 0.25)) for slow in (1, 1, 3)]
    found = estimate(once, twice, layers=4, whole=32)
    assert (found.layer_s, found.whole_s) == (0.25, 0.5 + 32 * 0.25)
