"""The numbers of the figures: Pareto fronts, loss curves, ratios with intervals, and Figure 2."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.page.boards import row_names, table_rows
from harness.page.costs import figure_2, ratio_figures, settings, time_table
from harness.page.figures import style
from harness.page.losses import coarse, loss_figures
from harness.page.runs import runs
from harness.page.scores import pareto, score_figures
from harness.records import Record, StepMeasured, make_history, read_records, write_history, write_record
from tests.record_factory import make

POINTS = st.lists(st.tuples(st.integers(0, 9).map(float), st.integers(0, 9).map(float)), min_size=1, max_size=12)


@given(POINTS)
def test_no_point_beats_one_on_the_front_and_every_other_is_beaten(points: list[tuple[float, float]]) -> None:
    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        return one != other and one[0] <= other[0] and one[1] >= other[1]

    front = pareto(points)
    assert set(front) == {point for point in points if not any(beats(other, point) for other in points)}
    assert front == sorted(front)


def test_scores_are_drawn_where_the_cost_is_known(results: Path) -> None:
    figures = {figure.title.partition(":")[0]: figure for figure in score_figures(read_records(results), results)}
    on_tiny = figures["Avg against seconds per training step"]
    assert [(trace["name"], trace["x"], trace["y"]) for trace in on_tiny.data[:-1]] == [
        ("MemVP", [0.2], [37.5]),
        ("DEHVF", [0.2], [75.0]),
    ]
    assert (on_tiny.data[-1]["x"], on_tiny.data[-1]["y"]) == ([0.2], [75.0])
    assert on_tiny.rows == (("MemVP", "0.2", "37.50"), ("DEHVF", "0.2", "75.00"))


def test_scores_are_drawn_against_the_memory_of_a_gpu_only(tmp_path: Path) -> None:
    def drawn(cuda: int | None) -> bool:
        memory = {"rss": 10**9, "cuda_allocated": cuda, "cuda_reserved": cuda}
        why = {f"peak_memory_bytes.{name}": "not measured" for name, size in memory.items() if size is None}
        figures = score_figures([make(peak_memory_bytes=memory, missing={**make().missing, **why})], tmp_path)
        return any(figure.title.startswith("Avg against peak memory") for figure in figures)

    assert drawn(10**8) and not drawn(None)


def test_a_line_is_the_mean_over_the_seeds_of_a_method(tmp_path: Path) -> None:
    def losses(record: Record, *values: float) -> None:
        path = write_record(record, tmp_path)
        steps = [StepMeasured(step, loss, 0.01, 4, 0.1) for step, loss in enumerate(values, 1)]
        write_history(path, make_history(record.spec_hash, steps))

    for record, values in (
        (make("memvp", 0), (3.0, 2.0)),
        (make("memvp", 1), (5.0, 1.0)),
        (make("memvp", 2), (9.0, 9.0, 9.0)),
        (make("dehvf", 0), (4.0, 4.0)),
        (make("dehvf", 1, backbone={"weight_hash": "1" * 64}), (6.0, 6.0)),  # another model
        (make("dehvf", 0, task="coco"), (7.0,)),
    ):
        losses(record, *values)
    shown = runs(read_records(tmp_path), tmp_path)
    names = {run.record.spec_hash: "MemVP" for run in shown if run.record.method == "memvp"}
    figures = loss_figures(shown, names)
    lines = {figure.title: [(t["name"], t["y"], t["showlegend"]) for t in figure.data] for figure in figures}
    assert lines == {
        "Training loss: coco on tiny, protocol uniform": [("dehvf", [7.0], True)],
        "Training loss: scienceqa on tiny, protocol uniform": [
            ("MemVP", [4.0, 1.5], True),
            ("MemVP", [9.0, 9.0, 9.0], False),
            ("dehvf", [6.0, 6.0], True),
            ("dehvf", [4.0, 4.0], False),
        ],
    }
    assert ("MemVP", "1", "5", "1", "2") in figures[1].rows and len(figures[1].rows) == 5


def test_a_method_looks_the_same_in_every_figure(results: Path) -> None:
    records = read_records(results)
    drawn = [*score_figures(records, results), *loss_figures(runs(records, results), row_names(records))]
    colours: dict[str, set[str]] = {}
    for trace in (trace for figure in drawn for trace in figure.data):
        look = trace.get("marker") or trace["line"]
        colours.setdefault(trace["name"], set()).add(look["color"])
    assert {"MemVP", "DEHVF"} <= set(colours) and all(len(found) == 1 for found in colours.values())


def test_a_figure_counts_parameters_as_the_tables_do(results: Path) -> None:
    records = read_records(results)
    figure = next(f for f in score_figures(records, results) if f.title.startswith("Avg against trainable parameters"))
    rows = {row.name: row.trainable for row in table_rows(records, 1)[0] if row.trainable}
    assert {trace["name"]: trace["x"] for trace in figure.data[:-1]} == {
        name: [count] for name, count in rows.items() if name in {trace["name"] for trace in figure.data}
    }


def test_a_column_without_a_value_is_left_out(results: Path) -> None:
    timed = next(iter(settings(read_records(results)).values()))
    heads, rows = time_table(timed)
    assert "Joules per batch" not in heads and "ms per batch" in heads
    assert {len(row) for row in rows} == {len(heads)}


@given(st.lists(st.integers(1, 99).map(float), min_size=1, max_size=300), st.integers(1, 50))
def test_coarse_losses_keep_mean_and_end(values: list[float], parts: int) -> None:
    steps = [float(step) for step in range(1, len(values) + 1)]
    found = coarse({"x": steps, "y": values}, parts)
    assert len(found["x"]) == len(found["y"]) == min(parts, len(values))
    assert found["x"] == sorted(set(found["x"])) and found["x"][-1] == steps[-1]
    lengths = [end - start for start, end in zip([0, *found["x"]], found["x"], strict=False)]
    assert max(lengths) - min(lengths) <= 1
    total = sum(length * mean for length, mean in zip(lengths, found["y"], strict=True))
    assert total == pytest.approx(sum(values), rel=1e-3)


def test_a_point_counts_by_the_steps_that_it_stands_for() -> None:
    assert coarse({"x": [1, 11, 12], "y": [12.0, 1.0, 7.0]}, 1) == {"x": [12], "y": [2.417]}
    assert coarse({"x": [1, 11, 12], "y": [12.0, 1.0, 7.0]}, 2) == {"x": [11, 12], "y": [2.0, 7.0]}


def test_ratios_have_the_interval_of_the_record(results: Path) -> None:
    figure = next(figure for figure in ratio_figures(read_records(results), results) if "(tiny)" in figure.title)
    assert figure.title.startswith("Time relative to that of MemVP")
    assert figure.data[0]["y"] == ["DEHVF", "MemVP"] and figure.data[0]["x"] == [1.2, 1.0]
    assert [round(value, 9) for value in figure.data[0]["error_x"]["array"]] == [0.1, 0.1]
    assert ("DEHVF", "train", "1.200", "1.100 to 1.300") in figure.rows


def test_every_point_of_figure_2_is_inside_its_panel() -> None:
    figure = figure_2()
    for trace in figure.data:
        low, high = figure.layout[trace["yaxis"].replace("y", "yaxis")]["range"]
        assert all(low <= value <= high for value in trace["y"])
    assert len({trace["xaxis"] for trace in figure.data}) == 4


@pytest.mark.parametrize("ground", ["#ffffff", "#16181c"])
def test_every_line_stands_out_from_the_page(ground: str) -> None:
    """WCAG 2 asks for a contrast of 3:1 of what must be seen to understand a figure."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for index in range(7):
        dark, light = sorted((luminance(style(index)["line"]["color"]), luminance(ground)))
        assert (light + 0.05) / (dark + 0.05) >= 3


def test_no_two_series_look_the_same() -> None:
    looks = [(style(i)["marker"]["color"], style(i)["marker"]["symbol"]) for i in range(42)]
    lines = [(style(i)["line"]["color"], style(i)["line"]["dash"]) for i in range(42)]
    assert len(set(looks)) == len(set(lines)) == 42


def test_each_protocol_has_a_figure_of_its_own(tmp_path: Path) -> None:
    published = {"method": {}, "train": {"protocol": "published"}}
    records = [make("memvp"), make("dehvf"), make("memvp", config=published)]
    shown = [[trace["name"] for trace in figure.data[:-1]] for figure in score_figures(records, tmp_path)]
    assert ["MemVP", "DEHVF"] in shown and ["MemVP"] in shown
