"""The speed measurement on tiny random backbones: what is timed and written, never how long it takes."""

import json
import sys
from dataclasses import replace

import pytest
import torch

from harness import cli
from harness.backbone.loader import load_backbone
from harness.backbone.machine import Machine
from harness.config.presets import resolve_spec
from harness.cost import contestants as building
from harness.cost import speed
from harness.cost.contestants import build_contestants, random_batch
from harness.cost.depth import whole_layers, with_layers
from harness.cost.energy import EnergyMeter
from harness.cost.flops import Workload
from harness.cost.plan import plan_speed
from harness.cost.speed import measure, profile_measured
from harness.cost.speed_report import make_records, report_text, write_records
from harness.cost.yardstick import Yardstick, yardstick_loss
from harness.errors import UserError
from harness.records import read_records
from harness.report.readme import results_readme
from harness.report.tables import leaderboard
from harness.run.train import adamw
from methods import registry
from methods.tuned import TunedModel
from tests.backbones import tiny_backbone

CPU = torch.device("cpu")
MACHINE = Machine(CPU, torch.float32, "random")
WORK = Workload(text_length=16, labels=3, new_tokens=2, train_batch=2, eval_batch=2)
METHODS = sorted(registry())


def plan(methods=("all",), layers=None, work=WORK, machine=MACHINE):
    return plan_speed(methods, resolve_spec("tiny"), layers, work, 2, machine, False)


@pytest.fixture(scope="module")
def measured():
    made = plan()
    return made, measure(made)


@pytest.fixture(scope="module")
def records(measured):
    return make_records(*measured)


# What is timed


def test_yardstick_computes_the_bare_model_and_reaches_every_block_backward():
    bare, wrapped = tiny_backbone(), tiny_backbone()
    model = TunedModel(wrapped, Yardstick(wrapped))
    batch = random_batch(bare, 2, 9, labels=3)
    with torch.no_grad():
        logits, _ = model.prefill(batch)
        torch.testing.assert_close(logits, bare.llm(input_ids=batch.input_ids_BL).logits[:, -1])
        features = model.encode(batch)["features_BJC"]
        (expected,) = bare.vision.features(batch.images_BCHW, [bare.vision.num_layers - 1], normalize=True)
        torch.testing.assert_close(features, expected)
    widths = []
    wrapped.llm.lm_head.register_forward_hook(lambda _, __, out: widths.append(tuple(out.shape)))
    yardstick_loss(model, batch).backward()
    assert widths == [(2, 9, bare.llm.config.vocab_size)]
    for parameter in (model.method.text_D, model.method.patch_C):
        assert parameter.grad is not None and parameter.grad.abs().max() > 0


def test_every_contestant_trains_its_own_parameters_and_keeps_no_gradient(monkeypatch):
    monkeypatch.setattr(building, "LEARNING_RATE", 0.1)
    backbone = load_backbone(resolve_spec("tiny"), weights="random")
    frozen = {name: tensor.clone() for name, tensor in backbone.llm.state_dict().items()}
    found = build_contestants(backbone, plan().plans)
    named = [(one.method, one.implementation) for one in found]
    assert named[0] == ("frozen", "yardstick")
    assert sorted(name for name, kind in named if kind == "shipped") == METHODS
    assert sorted(name for name, kind in named if kind == "plain") == ["dehvf", "memvp"]
    for one in found:
        before = [parameter.clone() for parameter in one.model.method.parameters()]
        one.model.train()
        one.step("train", WORK)()
        after = list(one.model.method.parameters())
        assert any(not torch.equal(a, b) for a, b in zip(after, before, strict=True)), one.method
        assert all(parameter.grad is None for parameter in one.model.parameters())
    assert all(torch.equal(frozen[name], tensor) for name, tensor in backbone.llm.state_dict().items())


def test_a_timed_step_trains_what_one_optimiser_step_trains(monkeypatch):
    monkeypatch.setattr(building, "LEARNING_RATE", 0.1)
    trained = []
    for timed in (True, False):
        torch.manual_seed(0)
        backbone = load_backbone(resolve_spec("tiny"), weights="random")
        for one in build_contestants(backbone, plan().plans):
            one.model.eval()  # without dropout
            if timed:
                one.step("train", WORK)()
            else:
                optimizer = adamw(one.model, one.recipe, 0.1)
                one.loss(random_batch(backbone, WORK.train_batch, WORK.text_length, WORK.labels)).backward()
                optimizer.step()
            trained.append((one.method, [parameter.detach() for parameter in one.model.method.parameters()]))
    half = len(trained) // 2
    for (name, first), (_, second) in zip(trained[:half], trained[half:], strict=True):
        torch.testing.assert_close(second, first, msg=lambda text, name=name: f"{name}: {text}")


def test_random_batches_are_the_same_again_and_labelled_at_the_end():
    backbone = tiny_backbone()
    batch, again = (random_batch(backbone, 3, 7, labels=2) for _ in range(2))
    assert torch.equal(batch.input_ids_BL, again.input_ids_BL) and torch.equal(batch.images_BCHW, again.images_BCHW)
    assert ((batch.labels_BL != -100).sum(dim=1) == 2).all() and (batch.labels_BL[:, :-2] == -100).all()
    assert bool(batch.has_image_B.all()) and bool(batch.attention_mask_BL.all())
    with pytest.raises(UserError, match="--text-length 2"):
        random_batch(backbone, 3, 2, labels=2)


class FakeNVML:
    """A management library that refuses every question, and one kind of error for all of them."""

    NVML_CLOCK_SM = 1
    NVMLError = type("NVMLError", (Exception,), {})

    def __getattr__(self, name):
        def refuse(*_):
            raise self.NVMLError(name)

        return refuse


def test_what_a_gpu_does_not_tell_is_unknown_and_stops_nothing():
    meter = EnergyMeter(CPU)
    meter._nvml, meter._handle = FakeNVML(), object()
    assert meter.joules() is None and meter.clock_mhz() is None
    told = type("Told", (FakeNVML,), {"nvmlDeviceGetTotalEnergyConsumption": lambda *_: 5000})()
    meter._nvml = told
    assert meter.joules() == 5.0 and meter.clock_mhz() is None


# From options to records


def test_wrong_options_are_user_errors():
    with pytest.raises(UserError, match="--methods oracle"):
        plan(("oracle",))
    # An ablation would be taken for the method itself.
    with pytest.raises(UserError, match="--methods dehvf-no_visual_prompts: Table 2"):
        plan(("dehvf", "blind"))
    with pytest.raises(
        UserError, match=r"divide into 4 equal groups.*remove dehvf from --methods, or choose another --layers"
    ):
        measure(plan(("dehvf",), layers=3))
    with pytest.raises(UserError, match="--layers 2: needs --weights random"):
        plan(layers=2, machine=replace(MACHINE, weights="pretrained"))


@pytest.mark.parametrize("batch", [10**12, 10**18])
def test_too_little_memory_is_one_line(batch):
    with pytest.raises(UserError, match=r"^out of memory: .*give a smaller --train-batch"):
        measure(plan(("memvp",), work=replace(WORK, train_batch=batch)))


def test_where_nothing_can_be_written_nothing_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("harness.cost.commands.measure", lambda *_: pytest.fail("measured"))
    (tmp_path / "file").write_text("")
    for options in (f"--results {tmp_path / 'file'}", f"--results {tmp_path} --profile {tmp_path / 'file/x.json'}"):
        monkeypatch.setattr(sys, "argv", ["harness", *f"speed --methods memvp {options}".split()])
        with pytest.raises(SystemExit) as done:
            cli.main()
        message = capsys.readouterr().err
        assert done.value.code == 2 and "file: cannot be written" in message and message.count("\n") == 1


def test_what_is_compiled_in_the_first_round_is_all_and_no_more_at_twice_the_depth(monkeypatch):
    """Contestants run the code of one class, and torch counts graphs by code: past its limit it would run eagerly."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_(module, backend=backend))

    def compiled(layers):
        before, first = {}, len(graphs)
        torch._dynamo.reset()
        made = replace(plan(("memvp", "lavin"), layers, work=replace(WORK, new_tokens=1)), compiled=True, steps=1)
        with torch._dynamo.config.patch(recompile_limit=2):
            measure(made, lambda phase, done: before.setdefault((phase, done), len(graphs)))
        last = max(done for _, done in before)
        assert before["train", 1] == before["train", last] < before["inference", 1] == before["inference", last]
        return len(graphs) - first

    assert compiled(8) <= compiled(4)


def test_on_a_gpu_training_is_captured_and_what_cannot_be_is_named(monkeypatch):
    captured = []

    def capture(step, pool):
        step()
        captured.append(pool)
        return step

    monkeypatch.setattr(speed, "_is_captured", lambda plan, phase: phase == "train")
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(speed, "capture", capture)
    made = plan(("memvp",))
    assert captured == ["pool"] * len(measure(made).contestants)

    def refuse(step, pool):
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be")

    monkeypatch.setattr(speed, "capture", refuse)
    with pytest.raises(UserError, match=r"^--compile: .* of frozen .* \(operation [a-z ]* capturing\); remove --compile"):
        measure(made)


def test_another_depth_is_another_model():
    spec = resolve_spec("7b")
    assert with_layers(spec, 32) is spec
    shallow = with_layers(spec, 8)
    assert shallow.name == "7b-8-layers" and shallow.llm_config["num_hidden_layers"] == 8
    assert shallow.llm_config["intermediate_size"] == 11008
    assert whole_layers(shallow) == whole_layers(resolve_spec("slice")) == 32 and whole_layers(spec) is None
    tiny = load_backbone(with_layers(resolve_spec("tiny"), 4), weights="random", device="meta")
    assert tiny.num_layers == 4


def test_records_hold_every_contestant_with_ratios(records, tmp_path):
    assert len(records) == len(METHODS) + 3
    for record in records:
        assert record.kind == "speed" and record.backbone.weights == "random" and not record.metrics
        assert record.speed.setting.text_length == 16 and record.speed.cpu_s_per_s > 0
        for timing in record.speed.phases.values():
            assert timing.layer_s is timing.whole_s is None
            assert timing.n == 2 and 0 < timing.p10_s <= timing.median_s <= timing.p90_s
            assert timing.ratio.median > 0 and timing.peak_memory_bytes > 0
        if record.method == "memvp" and record.variant is None:
            assert {timing.ratio.median for timing in record.speed.phases.values()} == {1.0}
        train = record.speed.phases["train"]
        assert train.tokens_per_s == pytest.approx(2 * 16 / train.median_s)
    write_records(records, tmp_path)
    assert sorted(read_records(tmp_path), key=str) == sorted(records, key=str)


def test_json_has_the_agreed_form(records):
    report = json.loads(report_text(records, "json"))
    assert {"device", "dtype", "preset", "rows"} <= report.keys()
    assert (report["dtype"], report["preset"]) == ("float32", "tiny")
    wanted = {
        "method",
        "phase",
        "implementation",
        "median_s",
        "p10_s",
        "p90_s",
        "ratio_to_baseline",
        "peak_memory_bytes",
    }
    assert all(wanted <= row.keys() for row in report["rows"])
    assert len(report["rows"]) == 2 * len(records)
    assert {row["implementation"] for row in report["rows"]} == {"shipped", "plain", "yardstick"}
    with pytest.raises(UserError, match="--format xml"):
        report_text(records, "xml")


def with_load(records, loaded):
    return [one.model_copy(update={"speed": one.speed.model_copy(update={"loaded": loaded})}) for one in records]


def test_text_warns_of_a_loaded_machine(records):
    assert "enter no table" in report_text(with_load(records, True), "markdown")
    assert "enter no table" not in report_text(with_load(records, False), "markdown")
    assert "| DEHVF" in report_text(with_load(records, False), "markdown")


def test_a_loaded_machine_replaces_no_record_of_a_quiet_one(records, tmp_path):
    loaded, quiet = (with_load(records, state) for state in (True, False))
    assert not write_records(loaded, tmp_path) and not write_records(quiet, tmp_path)
    assert write_records(loaded, tmp_path) == loaded
    assert not any(one.speed.loaded for one in read_records(tmp_path))


def test_the_page_of_results_has_a_board_for_each_setting(records):
    def longer(one):
        setting = one.speed.setting.model_copy(update={"text_length": 32})
        changes = {"speed": one.speed.model_copy(update={"setting": setting}), "spec_hash": one.spec_hash[::-1]}
        return one.model_copy(update=changes)

    quiet = with_load(records, False)
    page = results_readme([*quiet, *map(longer, quiet)])
    assert page.count("### tiny: table 2") == 2
    titles = "\n".join(line for line in page.splitlines() if line.startswith("### "))
    assert "(tiny: 16 text tokens, batch 2 in training and 2 in inference, 2 new tokens)" in titles
    assert "(tiny: 32 text tokens, batch 2 in training and 2 in inference" in titles
    left_out = {line for line in page.partition("## Fields of a record")[0].splitlines() if "left out" in line}
    assert left_out == {"- 2 runs left out: table 2 has no row for dehvf-plain, memvp-plain."}


def test_table_2_takes_the_shipped_forms_and_the_paired_ratios(records):
    quiet = with_load(records, False)
    board = leaderboard(quiet, 2, "tiny")
    rows = {row.method: row for row in board.rows}
    assert {row.variant for row in board.rows} == {None} and set(METHODS) <= rows.keys()
    for record in quiet:
        if record.variant is None and record.method in METHODS:
            cells, phases = rows[record.method].metrics, record.speed.phases
            assert cells["train"].value == phases["train"].median_s
            assert cells["train_ratio"].value == phases["train"].ratio.median
            assert cells["inference_ratio"].value == phases["inference"].ratio.median
    assert any(note.startswith("Measured on ") and "16 text tokens, batch 2 in training and 2" in note for note in board.notes)
    # Another text length is another measurement: never in one table with this one.
    setting = quiet[1].speed.setting.model_copy(update={"text_length": 99})
    other = quiet[1].model_copy(update={"speed": quiet[1].speed.model_copy(update={"setting": setting})})
    notes = leaderboard([*(one for one in quiet if one is not quiet[1]), other], 2, "tiny").notes
    assert any("1 run left out" in note for note in notes)


def test_the_command_line_measures_records_and_prints(tmp_path, capsys, monkeypatch):
    arguments = "speed --methods memvp,lavin --layers 4 --steps 1 --train-batch 1 --eval-batch 1 --text-length 12"
    arguments += f" --format json --results {tmp_path} --profile {tmp_path / 'profile.json'}"
    monkeypatch.setattr(sys, "argv", ["harness", *arguments.split()])
    there = []

    def profiled(*given):
        there.extend(read_records(tmp_path))
        return profile_measured(*given)

    monkeypatch.setattr("harness.cost.commands.profile_measured", profiled)
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 0
    assert len(there) == 4, "what was measured is recorded before the profile, which takes as long again"
    report = json.loads(capsys.readouterr().out)
    assert report["preset"] == "tiny-4-layers" and report["estimates"] == ["layer_s", "whole_s"]
    assert all(row["ratio_to_yardstick"] > 0 for row in report["rows"])
    profile = json.loads((tmp_path / "profile.json").read_text())
    (tmp_path / "profile.json").unlink()
    assert profile["preset"] == "tiny-4-layers" and set(profile["phases"]) == {"train", "inference"}
    for phase in profile["phases"].values():
        assert set(phase) == {"frozen yardstick", "memvp shipped", "memvp plain", "lavin shipped"}
        for found in phase.values():
            assert sum(row["self_ms"] for row in found["operators"]) == pytest.approx(found["self_ms"], rel=0.01)
            products = [row for row in found["operators"] if row["operator"] == "aten::mm"]
            assert products and all(row["shapes"] and row["calls"] > 0 for row in products)
    assert {(row["method"], row["implementation"]) for row in report["rows"]} == {
        ("frozen", "yardstick"),
        ("memvp", "shipped"),
        ("memvp", "plain"),
        ("lavin", "shipped"),
    }
    assert all(isinstance(row["whole_s"], float) for row in report["rows"])
    assert len(read_records(tmp_path)) == 4
    assert "Estimates, not measured" in report_text(read_records(tmp_path), "markdown")
