"""The page at / in a real browser: a person types a user id and reads titles."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import CONTRAST, needs_chromium, opened
from live import Client, served
from playwright.sync_api import Page, expect
from test_serve import KEY, STAGES, current, expected
from tiny_run import Run, Tiny

from workflows.serve.app import build

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny.exported.branch(tmp_path_factory.mktemp("page") / "run", stages=STAGES)


@pytest.fixture(scope="module")
def client(run: Run) -> Iterator[Client]:
    with served(build(current(run))) as client:
        yield client


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with opened(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """A page; the browser must log no errors and load nothing from outside."""
    messages: list[str] = []
    requested: list[str] = []
    browser.on("console", lambda message: messages.append(message.text))
    browser.on("pageerror", lambda error: messages.append(str(error)))
    browser.on("request", lambda request: requested.append(request.url))
    browser.set_viewport_size({"width": 1200, "height": 900})
    yield browser
    assert all(url.startswith(("http://127.0.0.1:", "data:")) for url in requested)
    refused = [
        text for text in messages if "status of 4" not in text
    ]  # the page shows these to its user
    assert refused == []


def look_up(page: Page, client: Client, user: str) -> None:
    """Open the page, type a user id and press Enter, as a person would."""
    page.goto(f"{client.base_url}/")
    expect(page.get_by_label("User id")).to_be_focused()
    page.keyboard.type(user)
    page.keyboard.press("Enter")


def titles(page: Page, of: str) -> list[str]:
    """Return the titles of a list once it is there."""
    expect(page.locator(f"{of} .title").first).to_be_visible()
    return page.locator(f"{of} .title").all_inner_texts()


def name(item: str, title: str | None) -> str:
    """Return what an item is called on the page."""
    return f"{title} {item}" if title else item


def test_a_person_types_a_user_id_and_reads_titles(run, client, page):
    look_up(page, client, "u6")
    right = expected(run, "u6", k=10)
    assert titles(page, "#list") == [name(row["item_id"], row["title"]) for row in right]
    scores = page.locator("#list .score").all_inner_texts()
    assert scores == [f"{row['score']:.3f}" for row in right]
    films = {film["item_id"]: film["title"] for film in run.world.films}
    known = run.histories(withheld=1)["u6"][::-1]
    assert titles(page, "#history") == [name(item, films.get(item)) for item in known]
    status = f"{len(right)} items for u6, recommended by two-tower"
    expect(page.get_by_role("status")).to_have_text(status)
    bars = [bar.bounding_box() for bar in page.locator("#list .bar i").all()]
    widths = [bar["width"] if bar else 0.0 for bar in bars]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > widths[-1]


def test_an_item_shows_and_hides_its_similar_items(client, page):
    look_up(page, client, "u6")
    assert len(titles(page, "#list")) > 1
    second = page.locator("#list > li").nth(1)
    button = second.get_by_role("button")
    button.focus()
    page.keyboard.press("Space")
    expect(button).to_have_attribute("aria-expanded", "true")
    expect(second.locator(".similar li")).to_have_count(5)
    item = second.get_attribute("data-item")
    like = client.get(f"/similar-items/{item}", params={"k": 5}).json()["items"]
    shown = [name(i["item"], i["labels"]["title"]) for i in like]
    assert second.locator(".similar .title").all_inner_texts() == shown
    page.keyboard.press("Space")
    expect(button).to_have_attribute("aria-expanded", "false")
    expect(page.locator(".similar")).to_have_count(0)


def test_an_unknown_user_and_a_wrong_filter_are_explained(client, page):
    look_up(page, client, '<img src=x onerror="alert(1)">')
    assert titles(page, "#list")
    expect(page.locator("#by")).to_have_text("popularity")
    expect(page.locator("#history-note")).to_have_text("no user with this id is known")
    expect(page.locator("img")).to_have_count(0)
    page.get_by_label("Filter").fill("colour=red")
    page.get_by_role("button", name="Look up").click()
    expect(page.get_by_role("alert")).to_contain_text("only[0]: got 'colour=red'; expected")
    expect(page.locator("#answer")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(client, page, scheme):
    page.emulate_media(color_scheme=scheme)
    look_up(page, client, "u6")
    assert titles(page, "#list")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    assert page.evaluate(CONTRAST) >= 4.5  # WCAG 2.2, 1.4.3


def test_the_page_fits_the_width_of_a_phone(client, page):
    page.set_viewport_size({"width": 360, "height": 740})
    look_up(page, client, "u6")
    assert titles(page, "#list")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    heights = page.evaluate("[...document.querySelectorAll('button')].map((e) => e.offsetHeight)")
    assert min(heights) >= 24  # WCAG 2.2, 2.5.8


def test_the_page_asks_for_the_key_if_the_server_has_one(run, page):
    with served(build(current(run), key=KEY)) as client:
        look_up(page, client, "u6")
        page.get_by_label("API key").fill(KEY)
        page.keyboard.press("Enter")
        assert titles(page, "#list")


def test_swagger_ui_describes_the_interface_and_loads_nothing_from_outside(client, page):
    page.goto(f"{client.base_url}/docs")
    paths = page.locator(".opblock-summary-path")
    expect(paths.first).to_be_visible()
    shown = {text.replace("\u200b", "") for text in paths.all_inner_texts()}
    assert shown == set(client.get("/openapi.json").json()["paths"])
