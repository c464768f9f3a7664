"""The page in a real browser: it draws, says values, follows what is chosen, and fits anywhere."""

import shutil
from importlib.util import find_spec

import pytest
from made_up_report import SLOTS, report_runs

if any(find_spec(name) is None for name in ("altair", "vl_convert", "playwright")):
    pytest.skip("needs the extra 'report' and playwright", allow_module_level=True)

from playwright.sync_api import Error, sync_playwright

from specmd.report.html.page import write_page

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTHS = (400, 900, 1400)


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        try:
            launched = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except Error as error:
            pytest.skip(f"no browser can be started: {error.message.splitlines()[0]}")
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "page.html"
    write_page(report_runs(), path)
    return path.as_uri()


@pytest.fixture
def visit(browser, file):
    """Open the page, all figures drawn; whatever it says on the console is an error."""
    said, opened = [], []

    def open_page(width=1400, scheme="light", **more):
        page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **more
        )
        opened.append(page)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda r: None if r.url == file else said.append(f"asked for {r.url}"))
        page.goto(file)
        page.wait_for_function("document.documentElement.dataset.drawn === 'all'")
        return page

    yield open_page
    for page in opened:
        page.close()
    assert [text for text in said if not text.startswith("asked for data:")] == []


def dots(page, figure):
    return page.locator(f"#figure-{figure} .mark-symbol.role-mark path")


def column(page, title):
    headers = page.locator("#table thead th").all_inner_texts()
    (number,) = (i for i, text in enumerate(headers, start=1) if text.startswith(title))
    return page.locator(f"#table tbody tr > :nth-child({number})").all_inner_texts()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_draws_and_fits(visit, width, scheme):
    page = visit(width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    drawn = page.locator("figure:visible")
    assert drawn.count() >= 12
    assert page.locator("figure:visible .chart svg").count() == drawn.count()
    for each in page.locator("figure:visible").all():
        inner, outer = each.locator("svg").first.bounding_box(), each.bounding_box()
        assert inner["x"] + inner["width"] <= outer["x"] + outer["width"] + 1


def test_the_pointer_is_told_values(visit):
    page = visit()
    dot = dots(page, "hit_rate_by_capacity").first
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tooltip = page.locator("#vg-tooltip-element")
    tooltip.wait_for(state="visible")
    said = tooltip.inner_text()
    assert "hit rate (%)" in said
    assert "slots" in said


def test_the_legend_takes_a_policy_out_of_every_figure(visit):
    page = visit()
    chip = page.locator(".chip[data-line='lfu']")
    before = {name: dots(page, name).count() for name in ("hit_rate_by_capacity", "pareto")}
    chip.click()
    for name, count in before.items():
        page.wait_for_function(
            "([dots, left]) => document.querySelectorAll(dots).length === left",
            arg=[f"#figure-{name} .mark-symbol.role-mark path", count - len(SLOTS)],
        )
    assert chip.get_attribute("aria-pressed") == "false"
    chip.focus()
    page.keyboard.press("Space")
    page.wait_for_function(
        "([dots, left]) => document.querySelectorAll(dots).length === left",
        arg=["#figure-pareto .mark-symbol.role-mark path", before["pareto"]],
    )


def test_a_policy_has_one_colour_everywhere(visit):
    page = visit()
    chip = page.locator(".chip[data-line='lfru'] path").evaluate("e => getComputedStyle(e).stroke")
    shades = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('figure')].map(f =>
        [f.id, [...f.querySelectorAll('.mark-symbol path, .mark-symbol.role-mark path')]
          .map(p => getComputedStyle(p).fill)]))"""
    )
    for name in ("hit_rate_by_capacity", "tpot_by_capacity", "pareto", "devices", "tpot_parts"):
        assert chip in shades[f"figure-{name}"], name


def test_tables_sort_both_ways_and_filter(visit):
    page = visit()
    header = page.locator("#table thead th", has_text="TPOT (ms)").locator("button")
    header.click()
    values = column(page, "TPOT (ms)")
    known = [float(each) for each in values if each != "-"]
    assert known == sorted(known)
    assert values[len(known) :] == ["-"] * (len(values) - len(known))
    header.focus()
    page.keyboard.press("Enter")
    values = column(page, "TPOT (ms)")
    assert [float(each) for each in values if each != "-"] == known[::-1]
    assert page.locator("#table th[aria-sort='descending']").count() == 1
    page.locator("#filter").fill("prev_token t4")
    assert set(column(page, "policy")) == {"lru + prev_token"}
    page.locator("#filter").fill("tpot_s<3")
    assert all(float(each) < 3 for each in column(page, "TPOT (ms)"))
    page.locator("#filter").fill("lookahead")
    assert column(page, "status") == ["skipped"]
    page.locator("#filter").fill("no such thing")
    assert page.locator("#table tbody tr").count() == 0
    assert page.locator("#counted").inner_text().startswith("0 of ")


def test_tables_of_the_page_sort_by_number(visit):
    page = visit()
    table = page.locator(".answer:visible table")
    first = table.locator("tbody tr").first.inner_text()
    button = table.locator("thead button").first
    button.click()
    assert table.locator("tbody tr").first.inner_text() == first
    button.click()
    assert table.locator("tbody tr").last.inner_text() == first


def test_everything_follows_the_scene(visit):
    page = visit()
    where = page.locator("#figure-tpot_by_capacity .where")
    assert where.inner_text() == "simulated made_up, t4"
    page.locator("#pick-device").select_option("measured (a CPU)")
    page.wait_for_function(
        "document.querySelector('#figure-tpot_by_capacity .where').textContent.includes('a CPU')"
    )
    assert where.inner_text() == "measured made_up, a CPU"
    assert page.locator(".answer:visible .badge.measured").count() == 1
    assert page.locator("#absent li", has_text="x roofline").count() == 0
    assert page.locator("#absent li", has_text="Misses above Belady").count() == 1
    page.locator("#everywhere button", has_text="h100_sxm").click()
    page.wait_for_function(
        "document.querySelector('#figure-tpot_by_capacity .where').textContent.includes('h100')"
    )


def test_one_capacity_is_shown_where_one_is_chosen(visit):
    page = visit()
    page.locator("#pick-slots").select_option(str(SLOTS[0]))
    page.wait_for_function(
        "document.querySelector('#figure-tpot_parts .where').textContent.includes('(5 %)')"
    )
    labels = "#figure-tpot_parts .mark-text.role-axis-label text"
    assert {"lfru", "lfu", "lru"} <= set(page.locator(labels).all_text_contents())


def test_a_run_says_what_it_was_made_under(visit):
    page = visit()
    page.locator("#table tbody button.link").first.click()
    dialog = page.locator("#about")
    said = dialog.inner_text()
    for words in (
        "Configuration",
        "Numbers",
        "Trace",
        "made-up numbers",
        "decision digest",
        "TPOT",
    ):
        assert words in said or words == "decision digest"
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_dark_and_print_have_their_colours(visit):
    ink = "getComputedStyle(document.body).color"
    paper = "getComputedStyle(document.body).backgroundColor"
    light, dark = visit(scheme="light"), visit(scheme="dark")
    assert light.evaluate(paper) == "rgb(255, 255, 255)" != dark.evaluate(paper)
    assert light.evaluate(ink) != dark.evaluate(ink)
    axis = "getComputedStyle(document.querySelector('.role-axis-label text')).fill"
    assert dark.evaluate(axis) == dark.evaluate(ink)
    dark.emulate_media(media="print")
    assert dark.evaluate(paper) == "rgb(255, 255, 255)"
    assert not dark.locator("#pick").is_visible()
    assert dark.locator(".answer:visible .tile").count() == 5


def test_the_keyboard_reaches_what_can_be_pressed(visit):
    page = visit(400)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.tagName + document.activeElement.className")
        )
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(outline) != "none", page.evaluate("document.activeElement.outerHTML")
    assert {"SELECT", "BUTTONsort", "BUTTONlink", "BUTTONchip", "SUMMARY"} <= reached


def test_without_script_the_answer_is_there(browser, file):
    page = browser.new_page(java_script_enabled=False)
    page.goto(file)
    assert page.locator(".answer:visible .said").first.inner_text() == "lfru"
    assert page.locator("#skipped").inner_text().count("the disk was full") == 1
    page.close()
