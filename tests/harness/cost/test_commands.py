"""The subcommands `speed` and `flops --figure2`, run as a user runs them."""

import json
import signal
from types import SimpleNamespace

import pytest

from harness.cost.session import profile_session
from harness.cost.speed_text import report_text
from harness.records import read_records
from tests.command_line import call

CONTESTANTS = {("frozen", "yardstick"), ("memvp", "shipped"), ("memvp", "plain"), ("lavin", "shipped")}
KEY = ("shipped", "memvp", "train")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A measurement with a profile: its report, its profile, its records, and the records before the profile."""
    folder = tmp_path_factory.mktemp("speed")
    profile, results, before_profile = folder / "profile" / "profile.json", folder / "results", []
    profile.parent.mkdir()

    def profiled(*given):
        before_profile.extend(read_records(results))
        return profile_session(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.cost.commands.profile_session", profiled)
        patch.setattr("harness.cost.profile.ROUNDS", 2)
        options = "--methods memvp,lavin --layers 4 --steps 1 --train-batch 1 --eval-batch 1 --text-length 12"
        options += " --goal train:memvp/frozen=0.5 --goal inference:memvp-plain/lavin=1.05"
        ended = call("speed", *options.split(), "--format", "json", "--results", results, "--profile", profile)
    assert ended.code == 0, ended.err
    return SimpleNamespace(
        report=json.loads(ended.out),
        profile=json.loads(profile.read_text()),
        records=read_records(results),
        before_profile=before_profile,
    )


def test_the_report_is_about_the_part_of_the_backbone(done):
    assert done.report["preset"] == "tiny-4-layers" and done.report["estimates"] == ["layer_s", "whole_s"]


def test_the_report_has_the_ratios_and_estimates_of_every_contestant(done):
    assert {(row["method"], row["implementation"]) for row in done.report["rows"]} == CONTESTANTS
    assert all(row["ratio_to_yardstick"] > 0 for row in done.report["rows"])
    assert all(isinstance(row["whole_s"], float) for row in done.report["rows"])


def test_the_report_has_every_goal_with_its_ratio(done):
    goals = {goal["goal"]: goal for goal in done.report["goals"]}
    assert goals.keys() == {"train:memvp/frozen=0.5", "inference:memvp-plain/lavin=1.05"}
    (train,) = (row for row in done.report["rows"] if (row["implementation"], row["method"], row["phase"]) == KEY)
    assert goals["train:memvp/frozen=0.5"]["ratio"] == train["ratio_to_yardstick"]


def test_every_contestant_is_recorded(done):
    assert len(done.records) == 4


def test_records_are_written_before_the_profile_which_takes_as_long_again(done):
    assert len(done.before_profile) == 4


def test_the_text_of_the_records_has_the_estimates(done):
    assert "Estimates, not measured" in report_text(done.records, "markdown")


def test_the_profile_has_both_phases_of_every_contestant(done):
    assert done.profile["preset"] == "tiny-4-layers" and set(done.profile["phases"]) == {"train", "inference"}
    for phase in done.profile["phases"].values():
        assert set(phase) == {"frozen yardstick", "memvp shipped", "memvp plain", "lavin shipped"}


def test_the_operators_of_the_profile_sum_to_its_total(done):
    for phase in done.profile["phases"].values():
        for found in phase.values():
            assert sum(row["self_ms"] for row in found["operators"]) == pytest.approx(found["self_ms"], rel=0.01)


def test_the_profile_lists_matrix_products_by_shape(done):
    for phase in done.profile["phases"].values():
        for found in phase.values():
            products = [row for row in found["operators"] if row["operator"] == "aten::mm"]
            assert products and all(row["shapes"] and row["calls"] > 0 for row in products)


def stop_in(phase):
    """Return a report of rounds that sends SIGTERM to this process in a phase."""

    def report(what, done, rounds):
        if what == phase:
            signal.raise_signal(signal.SIGTERM)

    return report


@pytest.mark.parametrize(("phase", "kept"), [("train", []), ("inference", ["interrupted"] * 3)])
def test_a_stop_in_the_inference_keeps_the_times_of_training(phase, kept, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.cost.commands.print_round", stop_in(phase))
    options = "--methods memvp --steps 1 --train-batch 1 --eval-batch 1 --text-length 12"
    ended = call("speed", *options.split(), "--results", tmp_path)
    records = read_records(tmp_path)
    assert ended.code == 128 + signal.SIGTERM and [one.status for one in records] == kept
    assert all(one.speed.phases.keys() == {"train"} for one in records)


@pytest.mark.parametrize("options", ["--results file", "--results . --profile file/x.json"])
def test_where_nothing_can_be_written_nothing_is_measured(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("harness.cost.commands.measure", lambda *_: pytest.fail("measured"))
    (tmp_path / "file").write_text("")
    ended = call("speed", "--methods", "memvp", *options.split())
    assert ended.code == 2 and "file: cannot be written" in ended.err and ended.err.count("\n") == 1


def test_figure_2_is_printed_and_drawn(tmp_path):
    ended = call("flops", "--figure2", "--plot", tmp_path / "figure.svg")
    assert ended.code == 0 and "Figure 2" in ended.out and (tmp_path / "figure.svg").stat().st_size > 0


@pytest.mark.parametrize("figure", [["--figure2"], ["--plot", "figure.svg"]])
@pytest.mark.parametrize(
    "option", ["--methods nosuch", "--model nosuch", "--text-length 128", "--visual-tokens 9", "--set num_scales=3"]
)
def test_figure_2_refuses_options_that_do_not_change_it(figure, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = call("flops", *figure, *option.split(), "--format", "json")
    name = option.split()[0]
    assert (ended.code, ended.out) == (2, "") and ended.err.startswith(f"error: {name}: Figure 2 has sizes of its own")
    assert ended.err.endswith(f"leave out this option or {figure[0]}\n") and not list(tmp_path.iterdir())
