"""The status page in a real browser: hostile text does nothing, the page refreshes itself, and works without script."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from playwright.sync_api import Browser, sync_playwright

from adapters.asgi import listen
from services.page import build_page
from services.page_data import StatusReader
from tests.lacks import browser as installed_browser
from tests.unit.test_page import ALERT, HOSTILE, World, hostile

pytestmark = [pytest.mark.browser, pytest.mark.skipif(installed_browser() is None, reason="no browser: apt install chromium")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    quiet = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=installed_browser(), args=quiet)
        yield chromium
        chromium.close()


@contextmanager
def served(world: World) -> Iterator[str]:
    """The page over what `world` tells, on a free port."""
    reader = StatusReader(query=world.query, ledger=world.ledger, processes=lambda: world.processes, now=lambda: world.now)
    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(
        build_page(
            reader, host_names=frozenset({"localhost"}), key="key", explain=lambda id_, app: [], query=lambda name, parameters: []
        ),
        log_config=None,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def test_hostile_text_runs_nothing_and_breaks_no_rule_of_the_content_security_policy(browser: Browser) -> None:
    page = browser.new_page()
    said: list[str] = []
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    with served(hostile()) as url:
        page.goto(url, wait_until="networkidle")
        text = page.inner_text("body")
        images = page.locator("img").count()
        page.close()
    assert said == []
    assert images == 0
    assert "alert(1)" in text
    assert HOSTILE[:8] in text


def test_the_page_shows_a_new_alert_without_being_reloaded(browser: Browser) -> None:
    world = World()
    world.rows["page_alerts"] = []
    page = browser.new_page()
    with served(world) as url:
        page.goto(url)
        assert "version=v8" not in page.inner_text("main").split("Actions")[0]
        world.rows["page_alerts"] = [ALERT]
        world.now += 60_000
        page.wait_for_selector("text=the detection held", timeout=15_000, state="attached")
        page.close()


def test_the_page_tells_its_story_without_script(browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    with served(World()) as url:
        page.goto(url)
        text = page.inner_text("body")
        context.close()
    assert "help-desk" in text
    assert "refusal" in text


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_nothing_sticks_out_of_the_window(browser: Browser, width: int, height: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": height})
    with served(hostile()) as url:
        page.goto(url)
        overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        page.close()
    assert overflow <= 0
