"""The subcommand `plot`."""

from pathlib import Path

import pytest

from harness.records import DiagnosticMatrix, Diagnostics, Record, diagnostics_path, write_diagnostics, write_record
from harness.report.matrix_plot import draw_matrix
from tests.command_line import Run
from tests.record_factory import make

pytest.importorskip("matplotlib")
MATRIX = DiagnosticMatrix(
    name="figure3",
    title="weights in $",
    about="what they mean",
    rows="group",
    columns="block",
    row_labels=["0", "1"],
    column_labels=[str(block) for block in range(40)],
    mean=[[0.0, *[1.0] * 39], [0.5] * 40],
)


def _keep(record: Record, results: Path) -> None:
    path = write_record(record, results)
    write_diagnostics(path, Diagnostics(spec_hash=record.spec_hash, images=9, matrices=[MATRIX]))


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_figures_are_written(suffix: str, call: Run, tmp_path: Path) -> None:
    for seed in (1, 0):
        _keep(make("dehvf", seed), tmp_path)
    _keep(make("dehvf", 0, variant="keys_only"), tmp_path)
    for name in ("figure2", "figure3"):
        out = tmp_path / f"{name}.{suffix}"
        done = call("plot", name, "--out", out, "--results", tmp_path)
        assert (done.code, done.err) == (0, "") and out.stat().st_size > 3000
    assert "figure3 of dehvf, scienceqa on tiny, seed 0, 9 images" in done.out
    assert "seed 1" in call("plot", "figure3", "--seed", 1, "--out", out, "--results", tmp_path).out
    assert (
        "dehvf-keys_only"
        in call("plot", "figure3", "--method", "dehvf-keys_only", "--out", out, "--results", tmp_path).out
    )


def test_labels_from_outside_draw_no_formula_and_take_no_time(
    call: Run, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    record = make("dehvf")
    odd = {"title": "x" * 100_000, "rows": "$x^{", "row_labels": ["y" * 20_000, "語"]}
    matrix = MATRIX.model_copy(update=odd)
    path = write_record(record, tmp_path)
    write_diagnostics(path, Diagnostics(spec_hash=record.spec_hash, images=9, matrices=[matrix]))
    done = call("plot", "figure3", "--out", tmp_path / "figure.svg", "--results", tmp_path)
    assert (done.code, done.err) == (0, "") and not recwarn.list
    path = diagnostics_path(path)
    path.write_text(path.read_text().replace("0.5", "1e308"))
    done = call("plot", "figure3", "--out", tmp_path / "figure.svg", "--results", tmp_path)
    assert done.code == 2 and f"{path}: matrices.0.mean.1.0" in done.err


def test_what_cannot_be_drawn_is_one_line(call: Run, tmp_path: Path) -> None:
    def refused(name: str, out: str = "figure.png") -> str:
        done = call("plot", name, "--out", tmp_path / out, "--results", tmp_path)
        assert done.code == 2 and done.err.count("\n") == 1 and not (tmp_path / out).exists()
        return done.err

    assert "plot figure3: no such figure, or no run" in refused("figure3")
    assert "figure.gif: a figure cannot be written in this format" in refused("figure2", "figure.gif")
    for method in ("dehvf", "memvp"):
        _keep(make(method), tmp_path)
    assert "give --method: dehvf, memvp" in refused("figure3")
    assert "choose from figure2, figure3" in refused("figure9")


@pytest.mark.parametrize("option", ["--method", "--model", "--task", "--seed"])
def test_a_figure_that_is_computed_takes_no_choice_of_a_run(option: str, call: Run, tmp_path: Path) -> None:
    done = call("plot", "figure2", "--out", tmp_path / "figure.svg", option, "1")
    assert done.code == 2 and f"error: {option}: figure2 is computed by formula" in done.err
    assert not list(tmp_path.iterdir())


def test_the_drawing_shows_every_value() -> None:
    panel, bar = draw_matrix(MATRIX, "seed 0").axes
    assert panel.images[0].get_array().tolist() == MATRIX.mean
    assert bar.get_ylabel() == "share" and len(panel.get_xticks()) <= 16
