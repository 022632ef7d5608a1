"""The page, in a browser that is run by a keyboard, a mouse and fingers; the server is a process of its own."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

pytest.importorskip("h11")
pytest.importorskip("msgspec")

from tests.serve.page_visit import Open, log, say, until
from tests.serve.page_visit import browser as browser
from tests.serve.page_visit import url as url
from tests.serve.page_visit import visit as visit


def test_a_turn_is_answered_shaded_and_learned(visit: Open, url: str) -> None:
    page = visit(url)
    assert page.title() == "edgelm"
    assert page.locator("#empty").is_visible()
    turn = say(page, "the ferry leaves the island at eight")
    assert page.locator("#empty").is_hidden()
    assert turn.locator(".reply").inner_text() != ""
    assert turn.locator(".reply").get_attribute("aria-busy") is None
    assert "own words" in turn.locator(".source").inner_text()
    assert turn.locator(".words").inner_text() == "the ferry leaves the island at eight"
    assert turn.locator(".word").all_inner_texts() == ["the", "ferry", "leaves", "the", "island", "at", "eight"]
    before, after = map(int, re.findall(r"\d+", turn.locator(".toggle").inner_text()))
    assert before > after
    heat = "spans => spans.map(span => Number(span.style.getPropertyValue('--heat')))"
    learned = turn.locator(".word").evaluate_all(heat)
    turn.get_by_role("button", name="before").click()
    assert turn.locator(".words").get_attribute("data-when") == "before"
    assert sum(turn.locator(".word").evaluate_all(heat)) > sum(learned)
    assert "bits before" in turn.locator(".word").first.get_attribute("title")
    assert re.search(r"Bits gained: \d+, over \d+ turn", page.locator("#curve").get_attribute("aria-label"))
    assert page.locator("#curve .line").count() == 1


def test_awake_blocks_are_shown_for_each_token(visit: Open, url: str) -> None:
    page = visit(url, reduced_motion="no-preference")
    assert "2 layers of 4 blocks" in page.locator("#caption").inner_text()
    say(page, "who is the first on board?")
    until(page, "/token \\d+ of \\d+/.test(document.querySelector('#caption').textContent)")
    page.focus("#token")
    page.keyboard.press("Home")
    assert re.search(r"All \d+ tokens: \d of 8 blocks awake", page.locator("#caption").inner_text())
    page.keyboard.press("ArrowRight")
    assert re.search(r"token 1 of \d+: \d of 8 blocks awake", page.locator("#caption").inner_text())
    inked = "c => new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size"
    assert page.locator("#blocks").evaluate(inked) > 1


def test_an_entry_is_forgotten_and_with_it_its_turn(visit: Open, url: str) -> None:
    page = visit(url)
    say(page, "the baker brings marzipan")
    say(page, "the lamps are lit")
    until(page, "document.querySelector('.entry .text')?.textContent === 'the lamps are lit'")
    entry = page.locator(".entry", has_text="marzipan")
    entry.get_by_role("button", name="Forget").click()
    entry.get_by_role("button", name="Keep").click()
    entry.get_by_role("button", name="Forget").click()
    entry.get_by_role("button", name="Forget", exact=True).click()
    page.get_by_text("Forgot 1 entry.").wait_for()
    assert not any("marzipan" in text for text in log(page))
    until(page, "document.querySelectorAll('.turn').length === 1")
    assert page.locator(".turn .reply").inner_text() == "This answer went with what was forgotten."
    page.fill("#match", "LAMPS")
    assert page.locator(".entry:visible .text").all_inner_texts() == ["the lamps are lit"]
    page.click("#forget-words")
    assert "1 entry holds" in page.locator("#ask-words").inner_text()
    page.locator("#ask-words").get_by_role("button", name="Forget").click()
    until(page, "document.querySelectorAll('.turn').length === 0")
    assert page.locator("#empty").is_visible()
    assert not any("lamps" in text for text in log(page))


def test_why_good_fix_and_undo(visit: Open, url: str) -> None:
    page = visit(url)
    say(page, "when does the ferry leave?")
    turn = say(page, "and when does it come back?")
    press = lambda name: turn.get_by_role("button", name=name, exact=True).click()  # noqa: E731
    press("Why")
    turn.locator(".why").wait_for()
    press("Why")
    assert turn.locator(".why").count() == 0
    assert page.locator(".turn").first.get_by_role("button", name="Undo").count() == 0
    press("Fix")
    turn.get_by_label("What it should have answered").fill("At nine in the evening.")
    page.keyboard.press("Enter")
    turn.get_by_text("corrected, and learned").wait_for()
    assert turn.locator(".reply").inner_text() == "At nine in the evening."
    press("Good")
    turn.get_by_text("learned as a good answer").wait_for()
    until(page, "document.querySelectorAll('.entry.fix, .entry.good').length === 2")
    assert page.locator(".entry.fix .text").inner_text() == "At nine in the evening."
    press("Undo")
    until(page, "document.querySelectorAll('.turn').length === 1")
    until(page, "document.querySelectorAll('.entry.fix, .entry.good').length === 0")
    assert "and when does it come back?" not in log(page)
    assert page.locator(".turn").get_by_role("button", name="Undo").is_visible()


def _focus_by_tab(page: Any, selector: str, key: str = "Tab") -> None:
    for _ in range(80):
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            return
        page.keyboard.press(key)
    raise AssertionError(f"{selector} is not reached with {key}")


def test_keyboard_alone(visit: Open, url: str) -> None:
    page = visit(url)
    _focus_by_tab(page, "#text")
    page.keyboard.type("fog over")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("the harbour")
    page.keyboard.press("Enter")
    page.locator(".toggle").wait_for()
    assert page.locator(".words").inner_text() == "fog over\nthe harbour"
    _focus_by_tab(page, ".actions button[aria-expanded]", "Shift+Tab")
    page.keyboard.press("Enter")
    page.locator(".why").wait_for()
    _focus_by_tab(page, ".entry .forget")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) != "none"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.textContent") == "Forget"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.matches('.entry .forget')")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.get_by_text("Forgot 1 entry.").wait_for()


def test_what_the_status_says_is_shown(visit: Open, url: str) -> None:
    page = visit(url)

    def change(route: Any) -> None:
        status = route.fetch().json()
        status |= {"blocks": 0, "is_hot": True, "celsius": 83.6, "gains": [40.0, -2.5], "tokens_per_s": 93.2}
        status |= {"guardrail": {"excess": -0.00123, "action": "pulled"}, "may_learn": False, "learns": False}
        route.fulfill(json=status)

    page.route("**/edgelm/v1/status", change)
    page.reload()
    until(page, "document.querySelector('#state').dataset.kind === 'hot'")
    assert page.locator("#state").inner_text() == "the device is hot: learning waits"
    facts = " ".join(page.locator("#facts").inner_text().split())
    assert "Guardrail \N{MINUS SIGN}0.12 % on general text; pulled back a little" in facts
    assert "Heat 84 °C the device is hot: learning waits" in facts
    assert "Speed 93 tokens/s" in facts
    assert "Bits gained: 38, over 2 turns, the last \N{MINUS SIGN}2.5" in page.locator("#curve").get_attribute(
        "aria-label"
    )
    assert page.locator("#awake").is_hidden()
    assert page.locator("#learn").is_disabled()
    assert page.locator("#forget").is_hidden()
    assert "only reads" in page.locator("#promise").inner_text()


SMALL = """els => els.filter(e => e.getClientRects().length && !e.closest('.skip'))
    .map(e => [e.outerHTML.slice(0, 60), e.getBoundingClientRect()])
    .filter(([, box]) => box.height < 40 || box.width < 40).map(([name]) => name)"""


def test_a_phone_of_360_pixels(visit: Open, url: str) -> None:
    page = visit(url, viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    say(page, "a" * 48 + " sounds the horn")
    page.locator(".turn").last.get_by_role("button", name="Why").tap()
    page.locator(".why").wait_for()
    for view in ("chat", "inside", "log"):
        page.locator(f"nav button[value={view}]").tap()
        assert page.locator(f"#{view}").is_visible()
        wide = "[document.documentElement, ...document.querySelectorAll('main, main *:not(textarea):not(canvas)')]"
        assert page.evaluate(f"{wide}.filter(e => e.scrollWidth > 360).map(e => e.outerHTML.slice(0, 80))") == []
        assert page.locator("button, label.switch, input:not([role=switch]), textarea").evaluate_all(SMALL) == []


def test_light_and_dark(visit: Open, url: str) -> None:
    colours = "[getComputedStyle(document.documentElement).backgroundColor, getComputedStyle(document.body).color]"
    light = visit(url, color_scheme="light").evaluate(colours)
    dark = visit(url, color_scheme="dark").evaluate(colours)
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (*light, *dark)]
    assert brightness[0] > 700 > 150 > brightness[1]
    assert brightness[2] < 150 < 600 < brightness[3]


def test_text_stays_text(visit: Open, url: str) -> None:
    page = visit(url)
    text = "<b>bold</b> <img src=x onerror=hit()> <script>window.hit = 1</script>"
    turn = say(page, text)
    assert turn.locator(".words").inner_text() == text
    until(page, f"document.querySelector('.entry .text').textContent === {json.dumps(text)}")
    assert page.locator("#turns b, #turns img, #turns script, #log b, #log img, #log script").count() == 0
    assert page.evaluate("window.hit") is None


def test_what_is_not_to_be_learned_is_not(visit: Open, url: str) -> None:
    page = visit(url)
    page.locator("#learn").uncheck()
    page.fill("#text", "the winter is long")
    page.keyboard.press("Enter")
    page.get_by_text("bits; not learned").wait_for()
    page.reload()
    until(page, "document.querySelector('.turn .words')?.textContent === 'the winter is long'")
    assert not page.locator("#learn").is_checked()
    assert "the winter is long" not in log(page)
    page.locator("#learn").check()
    page.fill("#text", "ghp_0123456789abcdefghijklmnopqrstuvwxyzAB")
    page.keyboard.press("Enter")
    page.get_by_text("looks like a secret: not learned").wait_for()
    page.get_by_role("button", name="New conversation").click()
    assert page.locator(".turn").count() == 0
