"""The drawing of Figure 2."""

import subprocess
import sys

import pytest

from harness.cost.figure2 import figure2
from harness.cost.figure2_plot import draw_figure2, plot_figure2
from harness.errors import UserError


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_drawing_is_written_and_the_same_each_time(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    one, other = (plot_figure2(figure2(), tmp_path / f"{name}{suffix}") for name in "ab")
    assert one.stat().st_size > 5000
    assert one.read_bytes() == other.read_bytes()


def test_every_point_is_inside_its_panel():
    pytest.importorskip("matplotlib")
    drawing = draw_figure2(figure2())
    for panel in drawing.axes:
        lines = [line.get_xydata() for line in panel.get_lines()]
        (left, right), (bottom, top) = panel.get_xlim(), panel.get_ylim()
        assert len(lines) == 2
        assert all(left <= x <= right and bottom <= y <= top for line in lines for x, y in line)
    assert len(drawing.axes) == 4 and bottom == 0


def test_another_suffix_is_rejected(tmp_path):
    with pytest.raises(UserError, match=r"figure\.gif"):
        plot_figure2(figure2(), tmp_path / "figure.gif")


def test_neither_torch_nor_matplotlib_is_loaded_before_a_figure_is_drawn():
    code = "import sys, harness.cost.figure2_plot; sys.exit(any(m in sys.modules for m in ('torch', 'matplotlib')))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[plots\]"'):
        plot_figure2(figure2(), tmp_path / "figure.png")
