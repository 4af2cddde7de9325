"""A speed measurement as a whole: what makes it fail, compilation, capture, and the load of the machine.

No test looks at how long something takes.
"""

from dataclasses import replace

import pytest
import torch

from harness.cost import session
from harness.cost.commands import print_round
from harness.cost.speed import clock_of, is_loaded, measure
from harness.errors import UserError
from tests.harness.cost.small_speed import WORK, plan, sample


def test_a_method_that_does_not_fit_the_depth_is_named():
    expected = r"layers cannot be adapted.*remove llama_adapter from --methods, or choose another --layers"
    with pytest.raises(UserError, match=expected):
        measure(plan(("llama_adapter",), layers=1))


@pytest.mark.parametrize("batch", [10**12, 10**18])
def test_too_little_memory_is_one_line(batch):
    with pytest.raises(UserError, match=r"^out of memory: .*give a smaller --train-batch"):
        measure(plan(("memvp",), work=replace(WORK, train_batch=batch)))


@pytest.fixture
def graphs(monkeypatch):
    """The graphs compiled so far. They are run as they are, without generating code."""
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_(module, backend=backend))
    return compiled


@pytest.mark.slow
def test_all_is_compiled_in_the_first_round_and_twice_the_depth_needs_no_more_graphs(graphs):
    """All contestants run the code of one class. Beyond its limit of graphs per code, torch would run uncompiled."""

    def compiled(layers):
        before, first = {}, len(graphs)
        torch._dynamo.reset()
        made = replace(plan(("memvp", "lavin"), layers, work=replace(WORK, new_tokens=1)), compiled=True, steps=1)
        with torch._dynamo.config.patch(recompile_limit=2):
            measure(made, lambda phase, done, _: before.setdefault((phase, done), len(graphs)))
        last = max(done for _, done in before)
        assert before["train", 1] == before["train", last] < before["inference", 1] == before["inference", last]
        return len(graphs) - first

    assert compiled(8) <= compiled(4)


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Capture the training step as on a GPU."""
    monkeypatch.setattr(session, "_is_captured", lambda plan, phase: phase == "train")
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")


def test_on_a_gpu_every_training_step_is_captured_in_one_pool_and_anew_for_its_memory(on_a_gpu, monkeypatch):
    captured = []

    def capture(run, pool):
        run()
        captured.append(pool)
        return run

    monkeypatch.setattr(session, "capture_graph", capture)
    count = len(measure(plan(("memvp",))).contestants)
    assert captured == ["pool"] * count + [None] * count


def test_a_step_that_cannot_be_captured_is_named(on_a_gpu, monkeypatch):
    def refuse(run, pool):
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be")

    monkeypatch.setattr(session, "capture_graph", refuse)
    with pytest.raises(
        UserError, match=r"^--compile: .* of frozen .* \(operation [a-z ]* capturing\); remove --compile"
    ):
        measure(plan(("memvp",)))


@pytest.fixture
def threads():
    """Lets a test change the number of compute threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("cpu_s", "threads", "on_gpu", "clock"),
    [(0.5, 1, False, "cpu"), (0.5, 2, False, "wall"), (0.5, 1, True, "wall"), (0.0, 1, False, "wall")],
)
def test_ratios_are_of_cpu_time_where_it_counts_the_work_alone(cpu_s, threads, on_gpu, clock):
    assert clock_of([sample(1.0, 0.5), sample(1.0, cpu_s)], threads, on_gpu=on_gpu) == clock


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
def test_processes_share_the_rounds(capfd):
    found = measure(plan(("memvp",), processes=2, threads=1, goals=["train:memvp-plain/frozen=1000"]), print_round)
    assert {timing.n for phases in found.timings.values() for timing in phases.values()} == {2}
    assert found.clock == "cpu" and [one.result for one in found.verdicts] == ["undecided"]
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if line.endswith("round 4 of 4")] == [
        f"process {part} of 2, {phase}: round 4 of 4" for part in (1, 2) for phase in ("train", "inference")
    ]


def test_a_goal_about_a_method_that_is_not_timed_is_rejected_before_timing():
    reported = []
    with pytest.raises(UserError, match=r"^--goal train:lavin/frozen=1: lavin is not timed; give names among frozen, "):
        measure(plan(("memvp",), goals=["train:lavin/frozen=1"]), lambda *round_: reported.append(round_))
    assert not reported


@pytest.mark.parametrize(
    ("load", "share", "on_gpu", "expected"),
    [
        (0.1, 1.9, False, False),
        (0.1, 1.0, False, True),
        (1.5, 1.9, False, True),
        (None, 1.9, False, False),
        (0.1, 0.9, True, False),
        (1.5, 0.9, True, True),
    ],
)
def test_a_loaded_machine_is_noticed(load, share, on_gpu, expected):
    assert is_loaded(load, share, threads=2, cores=2, on_gpu=on_gpu) is expected


@pytest.mark.parametrize(("load", "expected"), [(1.01, False), (1.5, True), (2.0, True)])
def test_a_measurement_on_half_of_the_cores_does_not_spoil_the_next_one(load, expected):
    """The load average still holds the thread of the measurement before."""
    assert is_loaded(load, 1.0, threads=1, cores=2, on_gpu=False) is expected
