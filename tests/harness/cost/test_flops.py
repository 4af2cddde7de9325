"""FLOPs: the formulas against torch's own counter on the real modules, and how they grow."""

import json
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import cli
from harness.config.presets import resolve_spec
from harness.cost.flops import Workload, count_flops, total_flops
from harness.cost.flops_table import flops_table, flops_text
from harness.cost.meta import method_plan
from harness.errors import UserError
from harness.run.attach import attach_on_meta
from methods import get_method, registry
from tests.backbones import tiny_backbone, tiny_config
from tests.harness.cost.metaflops import measured_inference, measured_train

# The formulas agree to the last digit today; a torch that fuses the scores' backward may count it a little higher.
TOLERANCE = 0.005
WORK = Workload(text_length=64, labels=6, new_tokens=3, train_batch=4, eval_batch=8)
ABLATIONS = [(name, variant) for name in registry() for variant in getattr(get_method(name), "ablations", {})]


def small(name, kv_heads=4, **overrides):
    """A method on a tiny backbone, shapes alone."""
    method_class = get_method(name)
    with torch.device("meta"):
        backbone = tiny_backbone(num_kv_heads=kv_heads)
        return backbone, method_class(backbone, tiny_config(method_class, backbone, **overrides))


def attach_on_slice(name):
    """The method with the preset's sizes on four layers of LLaMA-7B, shapes alone."""
    spec = resolve_spec("slice")
    return attach_on_meta(method_plan(name, spec), spec)


def check(backbone, method, phase, work=WORK):
    counted = total_flops(count_flops(backbone, method, phase, work))
    if phase == "train":
        measured = measured_train(backbone, method, work.train_batch, work.text_length, work.labels)
    else:
        measured = measured_inference(backbone, method, work.eval_batch, work.text_length, work.new_tokens)
    assert counted == pytest.approx(measured, rel=TOLERANCE)


@pytest.mark.parametrize("phase", ["train", "inference"])
@pytest.mark.parametrize("name", sorted(registry()))
def test_formulas_match_torchs_counter_at_real_widths(name, phase):
    check(*attach_on_slice(name), phase)


@pytest.mark.parametrize(("name", "variant"), ABLATIONS)
def test_formulas_match_torchs_counter_for_ablations(name, variant):
    for phase in ("train", "inference"):
        check(*small(name, **get_method(name).ablations[variant]), phase)


@pytest.mark.parametrize("name", sorted(registry()))
@settings(max_examples=3, deadline=None)
@given(
    st.integers(4, 24),
    st.integers(1, 4),
    st.sampled_from([1, 2, 4]),
    st.sampled_from(["train", "inference"]),
)
def test_formulas_match_on_grouped_queries_at_any_length(name, length, new_tokens, kv_heads, phase):
    work = Workload(text_length=length, labels=2, new_tokens=new_tokens, train_batch=2, eval_batch=3)
    check(*small(name, kv_heads), phase, work)


def test_backward_stops_at_the_first_trained_value():
    """Memory methods: layer 0's attention and FFN have no backward; the others cost their forward once more."""
    backbone, method = attach_on_slice("memvp")
    counted = count_flops(backbone, method, "train", WORK)
    assert counted["llm.ffn"].backward * 4 == counted["llm.ffn"].forward * 3
    assert counted["llm.attention_scores"].backward * 4 == counted["llm.attention_scores"].forward * 2 * 3
    assert counted["clip.patch_embedding"].backward == 0
    assert counted["llm.lm_head"].backward == counted["llm.lm_head"].forward


def test_inference_has_no_backward():
    backbone, method = attach_on_slice("dehvf")
    assert all(flops.backward == 0 for flops in count_flops(backbone, method, "inference", WORK).values())


def test_memory_methods_grow_linearly_in_visual_tokens_and_input_space_methods_do_not():
    def llm_part(name, tokens):
        longer = {"memory_length": 2048} if name == "dehvf" else {}
        row = flops_table([name], "slice", visual_tokens=tokens, settings=longer)[0]
        return sum(sum(v.values()) for k, v in row["by_module"].items() if not k.startswith("clip"))

    for name, quadratic in (("dehvf", False), ("llava_lora", True)):
        few, some, many = (llm_part(name, tokens) for tokens in (512, 1024, 1536))
        assert ((many - some) == (some - few)) is not quadratic


def test_nine_times_the_visual_tokens_cost_the_language_model_under_a_tenth_more():
    for phase in (0, 1):
        few, many = (
            sum(
                sum(flops.values())
                for module, flops in flops_table(
                    ["dehvf"],
                    "7b",
                    Workload(text_length=128),
                    visual_tokens=tokens,
                    settings={"memory_length": tokens + 16},
                )[phase]["by_module"].items()
                if module.startswith(("llm", "memory"))
            )
            for tokens in (64, 576)
        )
        assert few < many <= 1.1 * few


def test_a_matrix_of_one_layer_is_built_once_more_in_the_backward():
    """Three times its forward, and for all but the first layer's keys a fourth time; shared, three times in all."""
    shared, own = (flops_table([name], "bench")[0]["by_module"]["memory.build"] for name in ("memvp", "dehvf"))
    layers = 8
    assert own["forward"] == layers * shared["forward"]
    assert shared["backward"] == 2 * shared["forward"]
    assert own["backward"] == pytest.approx((3 - 1 / (2 * layers)) * own["forward"])


def test_json_holds_the_rows_and_markdown_the_modules():
    rows = json.loads(flops_text(["memvp"], "slice", "json"))
    assert [(row["method"], row["phase"], row["visual_tokens"]) for row in rows] == [
        ("memvp", "train", 256),
        ("memvp", "inference", 256),
    ]
    for row in rows:
        assert row["total"] == sum(m["forward"] + m["backward"] for m in row["by_module"].values())
    text = flops_text(["memvp"], "slice")
    assert "memory.read" in text and f"{rows[0]['total'] / 1e9:,.3f}" in text


def test_mistakes_of_the_user_are_named():
    with pytest.raises(UserError, match="memory_length to at least 576"):
        flops_table(["memvp"], "slice", visual_tokens=576)
    with pytest.raises(UserError, match="--set nothing"):
        flops_table(["memvp"], "slice", settings={"nothing": 1})
    with pytest.raises(UserError, match="--text-length 0"):
        Workload(text_length=0)
    with pytest.raises(UserError, match="--format csv"):
        flops_text(["memvp"], "slice", "csv")


def test_a_method_that_does_not_say_its_cost_is_refused():
    backbone, _ = attach_on_slice("memvp")

    class Silent:
        name = "silent"

    with pytest.raises(UserError, match="silent: does not count its FLOPs"):
        count_flops(backbone, Silent(), "train", WORK)


def test_the_command_line_counts_flops_and_draws_figure_2(tmp_path, capsys, monkeypatch):
    def call(arguments):
        monkeypatch.setattr(sys, "argv", ["harness", *arguments.split()])
        with pytest.raises(SystemExit) as done:
            cli.main()
        return done.value.code, capsys.readouterr().out

    code, out = call("flops --methods memvp --model tiny --text-length 20 --train-batch 3 --format json")
    rows = json.loads(out)
    assert code == 0 and [row["batch"] for row in rows] == [3, 32] and {row["text_length"] for row in rows} == {20}
    code, out = call(f"flops --figure2 --plot {tmp_path / 'figure.svg'}")
    assert code == 0 and "Figure 2" in out and (tmp_path / "figure.svg").stat().st_size > 0
