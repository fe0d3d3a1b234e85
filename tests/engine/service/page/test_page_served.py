"""The page in front of the service itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import anndata as ad
import pytest
from page_driving import GREEN, finish, generate, texts

import cellscribe as cs
from cellscribe.engine.packaged import packaged_cells

if TYPE_CHECKING:
    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """The address of a service of the packaged bundle."""
    command = [sys.executable, "-m", "cellscribe", "serve", "demo", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    assert process.stderr is not None
    line = next((line for line in process.stderr if "http://" in line), "")
    yield f"http://{line.split('http://', 1)[1].split()[0]}"
    process.terminate()
    assert process.wait(60) == 0


@pytest.fixture
def base_url(served: str) -> str:
    return served


def test_a_cell_is_described_as_the_library_describes_it(page: Page) -> None:
    cells = ad.read_h5ad(packaged_cells())
    generate(page)
    (text,) = texts(page)
    told = cs.load("demo").describe(cells, copy=True)
    assert text == told.iloc[0]["description"]
    assert page.evaluate(GREEN) > 0
    assert page.locator(".bars li").count() == 10
    assert str(packaged_cells()) in page.inner_text("#command")


def test_two_cells_of_an_upload_are_written_side_by_side(page: Page) -> None:
    page.set_input_files("input[type=file]", packaged_cells())
    page.wait_for_function("() => document.querySelector('#source').value.startsWith('up-')", timeout=30_000)
    page.wait_for_selector("#uploading", state="hidden")
    page.check("#compare")
    for _ in range(20):  # the list of the upload may still be taking the place of the first one
        page.click("#list .option >> nth=5")
        if page.locator("#generate").is_enabled():
            break
        page.wait_for_timeout(250)
    page.click("#generate")
    finish(page)
    found = texts(page)
    assert len(found) == 2
    assert all(len(text) > 20 for text in found)
