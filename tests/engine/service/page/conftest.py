"""A browser without a window, a server with canned answers, and a page that watches what it loads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from fake_page_server import FakeServer, Scene

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PATIENCE_MS = 8_000
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]


def _chromium() -> str | None:
    named = os.environ.get("CELLSCRIBE_CHROMIUM")
    return named or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium; of a module, for while it lives an event loop runs, which other tests need to start."""
    if os.environ.get("CELLSCRIBE_CHROMIUM"):  # whoever names one wants these tests to run
        from playwright import sync_api
    else:
        sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = _chromium()
    if path is None:
        pytest.skip("no Chromium: install the package chromium, or name it in CELLSCRIBE_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server of canned answers."""
    started = FakeServer()
    yield started
    started.close()


@pytest.fixture
def scene(server: FakeServer) -> Scene:
    """What that server does."""
    return server.scene


@pytest.fixture
def base_url(server: FakeServer) -> str:
    """Where the page is served."""
    return server.url


class Watched:
    """A profile with one page, and what went wrong on it."""

    def __init__(self, browser: Browser, **options: Any) -> None:
        self.context = browser.new_context(**{"locale": "en-GB", "viewport": {"width": 1280, "height": 900}, **options})
        self.context.set_default_timeout(PATIENCE_MS)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.base_url = ""
        self.page.on("pageerror", lambda error: self.faults.append(f"thrown: {error}"))
        self.page.on("console", lambda line: self.note(line.text, _is_fault(line.text)))
        self.page.on("request", lambda request: self.note(request.url, not _is_own(request.url, self.base_url)))

    def note(self, fault: str, is_one: bool) -> None:
        if is_one:
            self.faults.append(fault)

    def open(self, base_url: str) -> Page:
        self.context.set_offline(False)
        self.base_url = base_url
        self.page.goto(base_url)
        return self.page


@pytest.fixture(scope="module")
def plain(browser: Browser) -> Watched:
    """A profile for all tests that want nothing special; each has a server, and so an origin, of its own."""
    return Watched(browser)


@pytest.fixture
def open_page(browser: Browser, plain: Watched, base_url: str) -> Iterator[Callable[..., Page]]:
    """Open the page; in the end, nothing came from elsewhere, broke the policy or was thrown."""
    opened: list[Watched] = []

    def open_one(**options: Any) -> Page:
        watched = Watched(browser, **options) if options else plain
        watched.faults.clear()
        opened.append(watched)
        return watched.open(base_url)

    yield open_one
    for watched in opened:
        if watched is not plain:
            watched.context.close()
    assert [fault for watched in opened for fault in watched.faults] == []


def _is_fault(line: str) -> bool:
    return "Content Security Policy" in line or "404" in line


def _is_own(url: str, base_url: str) -> bool:
    asked = urlsplit(url)
    return asked.scheme in ("blob", "data") or asked.netloc == urlsplit(base_url).netloc


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """The page with its cells loaded."""
    opened = open_page()
    opened.wait_for_selector(".option")
    return opened
