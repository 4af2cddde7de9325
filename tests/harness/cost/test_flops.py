"""FLOPs: the formulas against torch's own counter on the real modules, and where the backward pass stops."""

import time
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.presets import resolve_spec
from harness.cost.flops import Workload, count_flops, total_flops
from harness.cost.meta import method_plan
from harness.errors import UserError
from harness.run.attach import attach_on_meta, meta_backbone
from methods import get_method, registry
from tests.backbones import tiny_backbone, tiny_config
from tests.harness.cost.metaflops import measured_inference, measured_train

# Today the formulas agree exactly. A torch that fuses the backward pass of the scores may count slightly more.
TOLERANCE = 0.005
WORK = Workload(text_length=64, labels=6, new_tokens=3, train_batch=4, eval_batch=8)
ABLATIONS = [(name, variant) for name in registry() for variant in getattr(get_method(name), "ablations", {})]


def small(name, kv_heads=4, **overrides):
    """Return a method on a tiny backbone, on the meta device."""
    method_class = get_method(name)
    with torch.device("meta"):
        backbone = tiny_backbone(num_kv_heads=kv_heads)
        return backbone, method_class(backbone, tiny_config(method_class, backbone, **overrides))


@cache
def slice_backbone():
    """Return four layers of LLaMA-7B and its vision tower on the meta device, to be copied."""
    return meta_backbone(resolve_spec("slice"))


def attach_on_slice(name):
    """Return a copy of `slice_backbone` with a method of its sizes attached."""
    spec = resolve_spec("slice")
    return attach_on_meta(method_plan(name, spec), spec, pristine=slice_backbone())


def check(backbone, method, phase, work=WORK):
    counted = total_flops(count_flops(backbone, method, phase, work))
    if phase == "train":
        measured = measured_train(backbone, method, work.train_batch, work.text_length, work.labels)
    else:
        measured = measured_inference(backbone, method, work.eval_batch, work.text_length, work.new_tokens)
    assert counted == pytest.approx(measured, rel=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["train", "inference"])
@pytest.mark.parametrize("name", sorted(registry()))
def test_formulas_match_torchs_counter_at_real_widths(name, phase):
    check(*attach_on_slice(name), phase)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["train", "inference"])
@pytest.mark.parametrize(("name", "variant"), ABLATIONS)
def test_formulas_match_torchs_counter_for_ablations(name, variant, phase):
    check(*small(name, **get_method(name).ablations[variant]), phase)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(registry()))
@settings(max_examples=3)
@given(
    st.integers(4, 24),
    st.integers(1, 4),
    st.sampled_from([1, 2, 4]),
    st.sampled_from(["train", "inference"]),
)
def test_formulas_match_on_grouped_queries_at_any_length(name, length, new_tokens, kv_heads, phase):
    work = Workload(text_length=length, labels=2, new_tokens=new_tokens, train_batch=2, eval_batch=3)
    check(*small(name, kv_heads), phase, work)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["train", "inference"])
@pytest.mark.parametrize("fusion", ["adaptive", "mean"])
def test_formulas_match_where_the_groups_have_different_numbers_of_layers(fusion, phase):
    with torch.device("meta"):
        backbone = tiny_backbone(num_layers=5)
        method = get_method("dehvf")
        attached = method(backbone, tiny_config(method, backbone, num_groups=2, fusion=fusion))
    check(backbone, attached, phase)


def test_backward_stops_at_the_first_trained_value():
    """The first of the four layers has no backward pass in a memory method, and the others cost their forward again."""
    backbone, method = attach_on_slice("memvp")
    # If every token is labelled, the last layer costs as much as the others.
    counted = count_flops(backbone, method, "train", replace(WORK, labels=WORK.text_length))
    assert counted["llm.ffn"].backward * 4 == counted["llm.ffn"].forward * 3
    assert counted["llm.attention_scores"].backward * 4 == counted["llm.attention_scores"].forward * 2 * 3
    assert counted["clip.patch_embedding"].backward == 0
    assert counted["llm.lm_head"].backward == counted["llm.lm_head"].forward


def test_inference_has_no_backward():
    backbone, method = attach_on_slice("dehvf")
    assert all(flops.backward == 0 for flops in count_flops(backbone, method, "inference", WORK).values())


@pytest.mark.parametrize("name", sorted(registry()))
@settings(max_examples=10, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.sampled_from([1, 4]))
def test_decoding_costs_the_sum_of_its_steps(name, length, new_tokens, kv_heads):
    """A later step costs what the first one does behind a prompt that has all earlier tokens."""
    backbone, method = small(name, kv_heads)

    def inference(text_length, tokens):
        work = Workload(text_length=text_length, new_tokens=tokens, eval_batch=3)
        return total_flops(count_flops(backbone, method, "inference", work))

    firsts = [inference(length + step, 2) - inference(length + step, 1) for step in range(new_tokens)]
    once = sum(product.flops for product in method.token_cost(3, 1, 1, decoding=True).prepared)
    steps = sum(firsts) - once * (new_tokens - 1)
    assert inference(length, new_tokens + 1) == inference(length, 1) + steps


def test_very_many_tokens_are_counted_as_fast_as_few():
    backbone, method = small("memvp")
    few, many = (replace(WORK, new_tokens=tokens) for tokens in (3, 10**9))
    before = time.process_time()
    more = total_flops(count_flops(backbone, method, "inference", many))
    assert time.process_time() - before < 5
    assert more > total_flops(count_flops(backbone, method, "inference", few)) * 10**8


def test_a_method_that_does_not_count_its_flops_is_rejected():
    backbone, _ = attach_on_slice("memvp")

    class Silent:
        name = "silent"

    with pytest.raises(UserError, match="silent: does not count its FLOPs"):
        count_flops(backbone, Silent(), "train", WORK)


def test_a_batch_without_tokens_is_rejected():
    with pytest.raises(UserError, match="--text-length 0"):
        Workload(text_length=0)
