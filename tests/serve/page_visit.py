"""A server for the page, a browser that opens it, and what a person does there."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.command import ROOT

pytest.importorskip("h11")
pytest.importorskip("msgspec")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
Open = Callable[..., Any]


@contextmanager
def serving_page(model: Path, home: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a server that learns, and its process."""
    command = [sys.executable, "-m", "edgelm", "serve", "--port", "0", "--learn", "--no-bank", "--json"]
    with (home.parent / f"{home.name}.log").open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [*command, "--model", str(model)], cwd=ROOT, env={**os.environ, "EDGELM_HOME": str(home)}, text=True,
            stdout=subprocess.PIPE, stderr=errors,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"], process
        finally:
            process.send_signal(signal.SIGINT)
            process.stdout.close()
            process.wait(60)


@pytest.fixture(scope="module")
def url(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if CHROMIUM is None:
        pytest.skip("the page is tried in Chromium, which is not installed")
    with serving_page(tiny_model, tmp_path_factory.mktemp("served") / "home") as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="the page is tried with playwright")
    if CHROMIUM is None:
        pytest.skip("the page is tried in Chromium, which is not installed")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Open]:
    """Opens the page; what its console says, errors and violations of its policy among it, must have been expected."""
    contexts, said = [], list[str]()

    def go(url: str, script: str = "", expects: str = "", **options: Any) -> Any:
        context = browser.new_context(locale="en-GB", **{"reduced_motion": "reduce", **options})
        context.set_default_timeout(60_000)
        contexts.append(context)
        if script:
            context.add_init_script(script)
        page = context.new_page()

        def note(text: str) -> None:
            if not expects or not re.search(expects, text):
                said.append(text)

        page.on("console", lambda message: note(message.text))
        page.on("pageerror", lambda error: note(str(error)))
        page.goto(url)
        until(page, "!document.querySelector('#learn').disabled")
        return page

    yield go
    for context in contexts:
        context.close()
    assert said == []


def until(page: Any, condition: str) -> None:
    """Waits until JavaScript holds; the page's policy keeps the browser from asking for that by itself."""
    for _ in range(1200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(condition)


def say(page: Any, text: str) -> Any:
    """Writes a turn, and waits until it is answered and learned; returns the turn on the page."""
    page.fill("#text", text)
    page.keyboard.press("Enter")
    turn = page.locator(".turn").last
    turn.locator(".toggle").wait_for()
    return turn


def log(page: Any) -> list[str]:
    return page.locator("#entries .text").all_inner_texts()
