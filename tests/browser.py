"""A real browser, where one is installed."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
#: Root in a container has no sandbox; the rest keeps it from calling home.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

#: The least contrast between a text and what is behind it (WCAG 2.2, "contrast ratio").
CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => c.slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let worst = 21;
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    const drawn = e.ownerSVGElement, style = getComputedStyle(e);
    if (!walker.currentNode.data.trim() || !(drawn || e.offsetParent)) continue;
    const [a, b] = [light(rgb(drawn ? style.fill : style.color)), light(behind(e))]
      .sort((x, y) => y - x);
    worst = Math.min(worst, (a + 0.05) / (b + 0.05));
  }
  return worst;
}"""

needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed here")


@contextlib.contextmanager
def opened(profile: Path) -> Iterator[Page]:
    """Open a browser with an empty page.

    Args:
        profile: an empty folder for what the browser keeps.
    """
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=FLAGS, headless=True
        )
        yield context.new_page()
        context.close()
