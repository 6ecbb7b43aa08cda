"""The page in Chromium, with a pointer, with the keyboard, and on a phone."""

import os
import re
import shutil
from dataclasses import replace
from functools import partial

import pytest
from made_up_results import made_up_cells, write_made_up_sweep

from jaxcrop.reports import page as pages
from jaxcrop.reports.analysis import analysed
from jaxcrop.reports.sweep import read_sweep

WIDE, PHONE = (1400, 900), (390, 844)

CURVES = "#chart-curves svg.chart"


@pytest.fixture(scope="module")
def expect():
    """Playwright's assertions, which wait for the page: charts are drawn when they are seen."""
    return pytest.importorskip("playwright.sync_api", reason="playwright absent").expect


@pytest.fixture(scope="module")
def chromium():
    """A browser of Debian's package; playwright brings none that could be fetched here."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright absent")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium absent: apt-get install chromium")
    arguments = (
        *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update"),
        *(("--no-sandbox",) if os.geteuid() == 0 else ()),
    )
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, report):
    """Opens the report; at the end there must have been no error and no request."""
    opened = []

    def open_with(size=WIDE, path=report / "report.html", **context):
        page = chromium.new_context(
            viewport={"width": size[0], "height": size[1]}, reduced_motion="reduce", **context
        ).new_page()
        troubles = []
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "request",
            lambda request: (
                request.url.startswith(("file:", "data:")) or troubles.append(request.url)
            ),
        )
        opened.append((page, troubles))
        page.goto(f"file://{path}")
        return page

    yield open_with
    for opened_page, troubles in opened:
        assert troubles == []
        opened_page.context.close()


def tooltip(page):
    tip = page.locator("#tip")
    return tip.inner_text() if tip.is_visible() else ""


def test_hovering_shows_the_values(open_page, study):
    page = open_page()
    chart = page.locator(CURVES).first
    chart.scroll_into_view_if_needed()
    chart.locator("polyline.line").first.wait_for(state="attached")
    box = chart.bounding_box()
    assert tooltip(page) == ""
    page.mouse.move(box["x"] + box["width"] - 30, box["y"] + box["height"] / 2)
    shown = tooltip(page)
    assert "900 labels" in shown
    of = study.at("africa", "SSL4EO-S12", ("id", 900)).interval("overall_accuracy")
    low, value, high = (f"{100 * part:.1f}" for part in (of.low, of.value, of.high))
    assert re.search(rf"SSL4EO-S12, ID\s+{value} \({low} to {high}\)", shown)
    page.mouse.move(5, 5)
    assert tooltip(page) == ""


def test_filters_change_the_charts(open_page, expect):
    page = open_page()
    panels = page.locator("#chart-curves .panel")
    expect(panels).to_have_count(4)  # three regions and their mean
    lines = page.locator(f"{CURVES} >> nth=0").locator("polyline.line")
    page.locator(CURVES).first.scroll_into_view_if_needed()
    expect(lines).to_have_count(6)  # three models, ID and OOD+ID
    page.get_by_role("button", name="ImageNet").click()
    expect(lines).to_have_count(4)
    page.get_by_role("button", name="OOD+ID").click()
    page.get_by_role("button", name="OOD", exact=True).click()
    expect(lines).to_have_count(2)
    page.get_by_role("button", name="Europe").click()
    page.get_by_role("button", name="South America").click()
    expect(panels).to_have_count(1)
    page.get_by_role("button", name="Africa").click()  # the last one stays
    expect(panels).to_have_count(1)
    assert page.get_by_role("button", name="Africa").get_attribute("aria-pressed") == "true"
    expect(page.locator("#table-budgets tbody tr.group")).to_have_count(2)  # Africa, the paper's


def test_the_metric_changes_everything(open_page, expect):
    page = open_page()
    label = partial(expect(page.locator(CURVES).first).to_have_attribute, "aria-label")
    label(re.compile("^Overall accuracy by number of labels, Africa"))
    cell = page.locator("#table-budgets .value").first
    value = cell.inner_text()
    page.get_by_label("Metric", exact=True).select_option("present_jaccard")
    label(re.compile("^Average IoU, present classes by number of labels, Africa"))
    expect(cell).not_to_have_text(value)
    expect(page.locator("#table-budgets-metric")).to_have_text("Average IoU, present classes (%)")


def test_the_keyboard_goes_everywhere(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator(CURVES).first.focus()
    page.keyboard.press("ArrowRight")
    first = tooltip(page)
    assert first.startswith("No label")
    assert page.locator("[aria-live]").inner_text().startswith("No label. ")
    page.keyboard.press("ArrowRight")
    assert tooltip(page).startswith("10 labels")
    page.keyboard.press("End")
    assert tooltip(page).startswith("900 labels")
    page.keyboard.press("ArrowLeft")
    assert tooltip(page).startswith("100 labels")
    page.keyboard.press("Escape")
    assert tooltip(page) == ""

    # Every stop of the tab key is named and shows that it has the focus.
    stops = []
    page.locator("#theme").focus()
    for _ in range(12):
        page.keyboard.press("Tab")
        stops.append(
            page.evaluate(
                "(e => [e.tagName, e.ariaLabel || e.textContent || e.labels?.[0]?.textContent,"
                "getComputedStyle(e).outlineStyle])(document.activeElement)"
            )
        )
    assert all(name and outline != "none" for _, name, outline in stops), stops


def test_what_a_sweep_has_not_yet_is_left_out(open_page, tmp_path):
    """One cell has no interval, no comparison and no curve; many models are folded away."""
    one = made_up_cells(("africa",), ("satlas",), (("ood", 0),), seeds=1)
    many = [
        replace(cell, learning_rate=rate)
        for cell in made_up_cells(("africa",), scenarios=(("id", 10),), seeds=1)
        for rate in (1e-2, 1e-3, 1e-4)
    ]
    for name, cells in {"one": one, "many": many}.items():
        folder = write_made_up_sweep(tmp_path / name, cells, chips=1)
        path = tmp_path / f"{name}.html"
        path.write_text(pages.page(analysed(read_sweep(folder)), {}, {}))
        opened = open_page(path=path)
        for chart in opened.locator("svg.chart").all():
            chart.scroll_into_view_if_needed()
            assert "NaN" not in chart.inner_html()
        for summary in opened.locator("main summary").all():
            summary.click()
        assert not re.search("NaN|null|undefined|Infinity", opened.locator("main").inner_text())
    opened.get_by_text("3 of 9 models").click()
    opened.get_by_role("button", name="ImageNet · rate 0.01").click()
    assert opened.get_by_text("4 of 9 models").is_visible()
    opened.keyboard.press("Escape")
    assert not opened.get_by_role("button", name="ImageNet · rate 0.01").is_visible()
    opened.locator(CURVES).first.scroll_into_view_if_needed()
    opened.locator(f"{CURVES} >> nth=0").locator("polyline.line").nth(3).wait_for(state="attached")


def test_the_map_hides_a_region_by_keyboard(open_page, expect):
    page = open_page()
    chart = page.locator("#chart-map svg.chart")
    chart.focus()
    page.keyboard.press("Home")
    assert "Africa" in tooltip(page)
    page.keyboard.press("Enter")
    assert page.get_by_role("button", name="Africa").get_attribute("aria-pressed") == "false"
    expect(page.locator("#chart-curves .panel")).to_have_count(3)


def test_every_chart_is_named_and_has_a_table(open_page):
    page = open_page()
    charts = page.locator("svg.chart")
    assert charts.count() > 15
    for number in range(charts.count()):
        chart = charts.nth(number)
        chart.scroll_into_view_if_needed()
        assert chart.get_attribute("role") == "img"
        assert len(chart.get_attribute("aria-label")) > 20
        table = chart.locator("xpath=following-sibling::details")
        table.locator("summary").click()
        table.locator("tbody tr").first.wait_for(timeout=5_000)
    assert page.locator("img:not([alt])").count() == 0


def test_a_phone_scrolls_in_one_direction(open_page):
    page = open_page(PHONE, has_touch=True)
    for chart in page.locator("svg.chart").all():
        chart.scroll_into_view_if_needed()
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    africa = page.get_by_role("button", name="Africa")
    assert not africa.is_visible()
    page.get_by_role("button", name="Filters").click()
    africa.click()
    assert page.get_by_role("button", name="Filters (1 hidden)").is_visible()
    chart = page.locator(CURVES).first
    chart.scroll_into_view_if_needed()
    chart.locator("polyline.line").first.wait_for(state="attached")
    box = chart.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] - 30, box["y"] + box["height"] / 2)
    page.locator("#tip").wait_for()
    assert "900 labels" in tooltip(page)
    tip = page.locator("#tip").bounding_box()
    assert tip["x"] >= 0
    assert tip["x"] + tip["width"] <= PHONE[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_and_the_button(open_page, scheme):
    page = open_page(color_scheme=scheme)

    def darkness():
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3])) < 3 * 128

    assert darkness() == (scheme == "dark")
    page.get_by_role("button", name="Switch to").click()
    assert darkness() == (scheme == "light")
    page.reload()
    assert darkness() == (scheme == "light")
    page.emulate_media(media="print")
    assert not darkness()


def test_text_can_be_read(open_page):
    """Contrast of text against the page, WCAG 2.2 AA, 1.4.3, in both schemes."""
    luminance = """(() => {
      const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
      const of = colour => {
        canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        const part = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const [r, g, b] = canvas.getImageData(0, 0, 1, 1).data;
        return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
      };
      const page = of(getComputedStyle(document.body).backgroundColor);
      return [...document.querySelectorAll("p, li, h2, th, td, button, .caption, svg .tick, a")]
        .filter(e => e.checkVisibility() && !e.closest(".warning"))
        .map(e => {
          const style = getComputedStyle(e);
          const text = of(e.closest("svg") ? style.fill : style.color);
          const ratio = (Math.max(text, page) + 0.05) / (Math.min(text, page) + 0.05);
          return [ratio, e.className.baseVal ?? e.className, e.textContent.slice(0, 30)];
        })
        .filter(([ratio]) => ratio < 4.5);
    })()"""
    for scheme in ("light", "dark"):
        page = open_page(color_scheme=scheme)
        page.locator(CURVES).last.scroll_into_view_if_needed()
        assert page.evaluate(luminance) == []
