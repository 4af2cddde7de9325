"""The page in headless Chromium: sorting, filtering, grouping, records, figures, and its use without sight or mouse."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.page.build import write_page
from harness.records import read_records
from tests.harness.page.conftest import keep
from tests.record_factory import make

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless browser."""
    api = pytest.importorskip("playwright.sync_api", reason='needs playwright: pip install -e ".[browser]"')
    if CHROMIUM is None:
        pytest.skip("needs the program chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any, page: Path) -> Iterator[Any]:
    """Open the page at a width and in a colour scheme; afterwards nothing was complained about, and nothing loaded."""
    contexts, complaints = [], []

    def open_at(width: int = 1400, scheme: str = "light", fragment: str = "") -> Any:
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(120_000)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("dialog", lambda dialog: complaints.append(f"a record's script ran: {dialog.message}"))
        tab.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
        tab.goto(f"{page.as_uri()}{fragment}")
        return tab

    yield open_at
    for context in contexts:
        context.close()
    assert not complaints


def methods(tab: Any, board: str) -> list[str]:
    """Return the methods of a board's rows, from top to bottom."""
    return tab.locator(f"#{board} tbody tr:not(.dtrg-group) th").all_inner_texts()


@pytest.mark.parametrize("width", (400, 1400))
def test_every_figure_is_drawn_and_nothing_is_wider_than_the_screen(open_page: Any, width: int) -> None:
    tab = open_page(width)
    plots = tab.locator("main .plot")
    assert plots.count() >= 10
    assert plots.evaluate_all("plots => plots.every(plot => plot.querySelector('svg.main-svg'))")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    known = tab.evaluate(
        """() => {
        const {figures} = JSON.parse(document.getElementById("data").textContent);
        return Object.entries(figures).flatMap(([name, {data, layout}]) =>
            (Plotly.validate(data, layout) || []).map(error => `${name}: ${error.msg}`));
        }"""
    )
    assert not known


def test_a_column_sorts_within_the_measured_rows(open_page: Any) -> None:
    tab = open_page()
    heading = tab.locator("#table-1 thead th", has_text="Avg")
    rows = tab.locator("#table-1 tbody tr")
    before = rows.all_inner_texts()
    orders = []
    for direction in ("ascending", "descending"):
        heading.click()  # the table is sorted a moment later
        tab.locator(f"#table-1 thead th[aria-sort='{direction}']", has_text="Avg").wait_for()
        orders.append(rows.all_inner_texts())
    one, other = orders
    measured = tab.locator("#table-1 tr.measured").count()
    assert measured == 3 and sorted(one) == sorted(before)
    assert one[:measured] == other[:measured][::-1] != other[:measured]
    kinds = rows.evaluate_all("rows => rows.map(row => row.className.includes('measured'))")
    assert kinds == sorted(kinds, reverse=True)


def test_empty_cells_come_last_in_both_directions(open_page: Any) -> None:
    tab = open_page()
    cells = tab.locator("#overview tr.measured td:nth-child(6)")
    for direction in ("ascending", "descending"):
        tab.locator("#overview thead th", has_text="Seconds per step").click()
        tab.locator(f"#overview thead th[aria-sort='{direction}']", has_text="Seconds per step").wait_for()
        empty = [text.strip() == "" for text in cells.all_inner_texts()]
        assert any(empty) and not all(empty) and empty == sorted(empty)


def test_the_text_of_a_chosen_option_is_not_cut(open_page: Any) -> None:
    tab = open_page()
    cut = """selects => selects.filter(select => {
        const text = document.createElement("span");
        text.style.font = getComputedStyle(select).font;
        text.style.whiteSpace = "pre";
        text.textContent = select.selectedOptions[0].textContent;
        document.body.append(text);
        const width = text.getBoundingClientRect().width;
        text.remove();
        return select.clientWidth < width + 20;
    }).map(select => select.selectedOptions[0].textContent)"""
    assert tab.locator("main select").evaluate_all(cut) == []
    tab.locator("#table-2 select[data-facet='4']").select_option(index=1)
    assert tab.locator("main select").evaluate_all(cut) == []


def test_a_long_legend_hides_no_name_and_leaves_the_plot_its_room(open_page: Any) -> None:
    tab = open_page(400)
    plots = tab.locator("main .plot:has(.legend)")
    assert plots.count() >= 5 and tab.locator("main .legend .scrollbar[width]:not([width='0'])").count() == 0
    least = plots.evaluate_all("plots => Math.min(...plots.map(p => p.querySelector('.bglayer').getBBox().height))")
    assert least > 100


def test_the_method_stays_where_a_table_is_scrolled_to_the_side(open_page: Any) -> None:
    tab = open_page(400)
    region, name = tab.locator("#table-1 .scroll"), tab.locator("#table-1 tbody th").first
    before = name.bounding_box()["x"]
    region.evaluate("region => region.scrollLeft = 300")
    assert region.evaluate("region => region.scrollLeft") == 300 and name.bounding_box()["x"] == before


def test_a_filter_finds_names_with_accents_and_of_another_case(chromium: Any, tmp_path: Path) -> None:
    names = ["modele", "Modele", "modèle"]
    for name in names:
        keep(make(model=name), tmp_path)
    tab = chromium.new_page()
    tab.goto(write_page(tmp_path, tmp_path / "site").as_uri())
    board = tab.locator("#overview")
    for name in names:
        board.locator("select[data-facet='1']").select_option(name)
        assert board.locator("tbody tr.measured td:nth-child(2)").all_inner_texts() == [name]
    tab.close()


def test_rows_are_filtered_searched_and_grouped(open_page: Any) -> None:
    tab = open_page()
    board = tab.locator("#overview")
    model, method = (board.locator(f"select[data-facet='{index}']") for index in (1, 2))
    everything = methods(tab, "overview")
    method.select_option("DEHVF")
    assert set(methods(tab, "overview")) == {"DEHVF"}
    model.select_option("tiny")
    assert methods(tab, "overview") == ["DEHVF"]
    model.select_option("")
    method.select_option("")
    assert methods(tab, "overview") == everything
    board.locator("select.group").select_option(label="task")
    assert board.locator("tr.dtrg-group").all_inner_texts() == ["coco", "scienceqa"]
    board.locator("select.group").select_option(label="nothing")
    assert methods(tab, "overview") == everything


def test_a_value_opens_its_records_by_keyboard(open_page: Any) -> None:
    tab = open_page()
    link = tab.locator("#table-1 tr.measured", has_text="tiny").locator("a").first
    link.focus()
    tab.keyboard.press("Enter")
    dialog = tab.get_by_role("dialog")
    dialog.wait_for()
    assert dialog.locator("details.run").count() == 2
    dialog.locator(".plot.loss svg.main-svg").first.wait_for()
    assert "environment.versions.torch" in dialog.inner_text()
    tab.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert tab.evaluate("document.activeElement.getAttribute('href').startsWith('#runs=')")
    assert "#" not in tab.url


def test_the_browser_goes_back_from_the_records_and_to_them_again(open_page: Any) -> None:
    tab = open_page(fragment="#table-1")
    tab.locator("#table-1 tr.measured", has_text="tiny").locator("a").first.click()
    dialog = tab.get_by_role("dialog")
    dialog.wait_for()
    tab.go_back()
    dialog.wait_for(state="hidden")
    assert tab.url.endswith("#table-1")
    tab.go_forward()
    dialog.wait_for()
    assert dialog.locator("details.run").count() == 2


def test_the_losses_of_a_record_stand_as_numbers(open_page: Any, results: Path) -> None:
    run = next(run for run in read_records(results) if run.kind == "train" and run.status == "completed")
    tab = open_page(fragment=f"#runs={run.spec_hash}")
    rows = tab.locator("#opened .losses tbody tr")
    assert [row.locator("td").all_text_contents() for row in rows.all()] == [["1", "3"], ["2", "1.5"], ["3", "1"]]


def test_an_address_opens_a_record_with_its_captions(open_page: Any, page: Path) -> None:
    tab = open_page()
    address = tab.locator("#table-3 tr.measured a").first.get_attribute("href")
    tab = open_page(fragment=address)
    image = tab.get_by_role("dialog").locator("img").first
    image.wait_for()
    assert image.evaluate("image => image.complete && image.naturalWidth") == 8


def test_questions_are_filtered_by_category_and_by_dispute(open_page: Any) -> None:
    tab = open_page()
    cards = tab.locator("section.questions .card:visible")
    assert cards.count() == 2
    tab.locator("select.category").select_option("Birds")
    assert cards.count() == 1
    tab.locator("select.category").select_option("")
    tab.locator("select.disputed").select_option("yes")
    assert cards.count() == 1
    options = cards.locator("li").all_inner_texts()
    assert [option.split() for option in options] == [["yes", "(right)", "MemVP"], ["no", "DEHVF"]]


def test_the_weights_of_one_sample_stand_with_its_image(open_page: Any) -> None:
    tab = open_page()
    inside = tab.locator(".inside")
    assert not inside.locator("img.sample").is_visible()
    inside.locator("select").select_option("1")
    assert inside.locator("img.sample").evaluate("image => image.naturalWidth") == 8
    assert inside.locator(".plot").evaluate("plot => plot.data[0].z") == [[None, 1], [1, None]]
    numbers = inside.locator("figure details td").all_text_contents
    assert numbers() == ["0", "0.000", "1.000", "1", "1.000", "0.000"]
    inside.locator("select").select_option("")
    assert numbers() == ["0", "0.250", "0.750", "1", "0.500", "0.500"]
    assert inside.locator(".plot").evaluate("plot => plot.data[0].z") == [[0.25, 0.75], [0.5, 0.5]]


def test_dark_follows_the_system_and_the_button(open_page: Any) -> None:
    tab = open_page(scheme="dark")
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.get_by_role("button", name="Dark or light").click()
    light = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark, light) == ("rgb(22, 24, 28)", "rgb(255, 255, 255)")


@pytest.mark.parametrize("scheme", ("light", "dark"))
def test_axe_finds_nothing_serious(open_page: Any, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason='needs axe: pip install -e ".[browser]"')
    found = axe.Axe().run(open_page(scheme=scheme)).response["violations"]
    serious = [item for item in found if item["impact"] in ("serious", "critical")]
    assert not [(item["id"], [node["target"] for node in item["nodes"][:3]]) for item in serious]
