"""The page where something is stopped, broken off or in pieces, and its parts by themselves."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.command import run_cli

pytest.importorskip("h11")
pytest.importorskip("msgspec")

from tests.serve.page_visit import Open, say, serving_page, until
from tests.serve.page_visit import browser as browser
from tests.serve.page_visit import url as url
from tests.serve.page_visit import visit as visit


def test_a_conversation_that_is_not_kept_is_begun_anew(visit: Open, url: str) -> None:
    page = visit(url, expects="404")
    say(page, "it is loud at night")

    def refuse(route: Any) -> None:
        if route.request.post_data_json["conversation"]:
            said = {"error": {"message": "that conversation is not kept any more", "code": "no_conversation"}}
            route.fulfill(status=404, content_type="application/json", body=json.dumps(said))
        else:
            route.continue_()

    page.route("**/edgelm/v1/chat", refuse)
    say(page, "it never borrows anything")
    assert "begins a new one" in page.locator(".divider").inner_text()
    assert page.locator(".turn").count() == 2


ENDLESS = """
const real = window.fetch;
window.fetch = async (path, options) => {
  if (!path.endsWith("/chat")) return real(path, options);
  const body = new ReadableStream({start(pipe) {
    const send = (text) => pipe.enqueue(new TextEncoder().encode(text));
    send('event: piece\\ndata: {"text": "and so on"}\\n\\n');
    options.signal.addEventListener("abort", () => pipe.error(new DOMException("stopped", "AbortError")));
  }});
  return new Response(body, {headers: {"content-type": "text/event-stream"}});
};"""


def test_an_answer_is_stopped(visit: Open, url: str) -> None:
    page = visit(url, script=ENDLESS)
    for stop in (lambda: page.click("#stop"), lambda: page.keyboard.press("Escape")):
        page.fill("#text", "tell me everything")
        page.keyboard.press("Enter")
        page.locator("#stop").wait_for()
        assert page.locator("#send").is_hidden()
        page.get_by_text("and so on").last.wait_for()
        stop()
        page.locator("#send").wait_for()
    assert page.get_by_text("Stopped.").count() == 2


def test_a_conversation_goes_on_after_its_first_answer_was_stopped(visit: Open, url: str) -> None:
    page = visit(url)
    page.fill("#text", "when is there fog?")
    page.keyboard.press("Enter")
    page.locator(".word").first.wait_for()
    page.keyboard.press("Escape")
    page.locator("#send").wait_for()
    say(page, "and who waits for it?")
    assert page.locator(".divider").count() == 0
    assert page.locator("#trouble").is_hidden()


def test_the_parser_takes_pieces_of_any_size(visit: Open, url: str) -> None:
    script = """async (size) => {
      const { EventParser } = await import("/page/stream.js");
      const text = ": hello\\r\\n\\r\\nevent: piece\\r\\ndata: {\\"a\\":1}\\r\\n\\r\\n"
        + "id: 3\\ndata:x\\ndata: y\\n\\nevent: e\\n\\ndata: z";
      const parser = new EventParser();
      const found = [];
      for (let i = 0; i < text.length; i += size) found.push(...parser.feed(text.slice(i, i + size)));
      return found;
    }"""
    page = visit(url)
    for size in (1, 2, 7, 1000):
        assert page.evaluate(script, size) == [
            {"name": "piece", "data": '{"a":1}'}, {"name": "message", "data": "x\ny"},
        ]  # fmt: skip


def test_words_are_made_of_tokens(visit: Open, url: str) -> None:
    script = """async () => {
      const { joinTokens, sentence, shade } = await import("/page/words.js");
      const words = joinTokens([[" my", 1], [" B", 11], ["isc", 7], ["uit", 0], [",", 2], ["\\n", 1], ["so", 3]]
        .map(([text, bits]) => ({ text, bits })));
      return [words.map((w) => [w.text, w.bits]), sentence(words), shade(-1), shade(1000)];
    }"""
    words = [[" my", 1], [" Biscuit,", 20], ["\nso", 4]]
    assert visit(url).evaluate(script) == [words, "25 bits before", 0, 1]


def test_a_server_that_stops_is_missed(visit: Open, tiny_model: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with serving_page(tiny_model, home) as (url, process):
        page = visit(url, expects="ERR_|Failed to load")
        say(page, "the sea is a good neighbour")
        say(page, "the rope is untied")
        until(page, "document.querySelectorAll('.entry .text').length === 2")
        page.locator(".entry", has_text="rope").get_by_role("button", name="Forget").click()
        page.keyboard.press("Enter")
        page.get_by_text("Forgot 1 entry.").wait_for()
        process.send_signal(signal.SIGINT)
        page.get_by_text("The connection to edgelm is lost.").wait_for()
        page.fill("#text", "are you there?")
        page.keyboard.press("Enter")
        until(page, "document.querySelector('#text').value === 'are you there?'")
        assert page.locator("#trouble").is_visible()
    done = run_cli(["profile", "log", "--json"], env={"EDGELM_HOME": str(home)})
    texts = [entry["text"] for entry in done.json_lines if entry["text"]]
    assert texts == ["the sea is a good neighbour"]
