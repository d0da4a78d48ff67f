"""Pictures of screens: made for the documentation by `make screenshots`, and compared with those in every run.

What differs between two runs (ids, times, random names) is replaced in the page before the picture is taken; live parts
hold still meanwhile, as they do for a form in them that is on its way. Compared is a small grey copy: letters may be
drawn a little differently, what stands where may not change unnoticed.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from tempfile import gettempdir

import pytest
from PIL import Image, ImageChops
from playwright.sync_api import Page

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
APPROVED = (
    "access-at",
    "credential-confirm",
    "credential-shown",
    "denied",
    "home",
    "leases-problems",
    "proposal-rules",
    "review",
    "suspend-dry-run",
)
# These are kept as they look in the dark on a phone, too.
SMALL = ("credential-shown", "denied", "home", "leases-problems", "review")
APPROVING = "GUESTKEY_APPROVE" in os.environ
_SHRUNK = 8
_LOUD = 48
_MOST_LOUD = 0.02
_MOST_TALLER = 48
_COLOURS = 64
_STEADY = r"""() => {
  const steady = (text) => text
    .replace(/\b([a-z]{2}_|l|lease |gk_[a-z0-9]{6}_l)[0-9a-z]{25,26}\b/g, "$101k9zq6c5w3m8v4x7r2t1y0b9d")
    .replace(/\b(trials|Works|Labels|Organisation)([- ])[0-9a-f]{4,8}\b/g, "$1$2a1b2")
    .replace(/\b\d{1,2} [A-Z][a-z]{2} \d{4}\b/g, "3 Mar 2026")
    .replace(/\b\d{4}-\d{2}-\d{2}T[\d:.]+/g, "2026-03-03T14:32")
    .replace(/\b\d{2}:\d{2}(:\d{2})? UTC/g, "14:32 UTC")
    .replace(/\((now|\d+ (s|min|h) ago)\)/g, "(9 s ago)")
    .replace(/\(in \d+ (s|min|h|days)\)/g, "(in 14 min)")
    .replace(/\bin \d+ (s|min|h)\b/g, "in 14 min")
    .replace(/factor \d+ (s|min) ago/g, "factor 9 s ago")
    .replace(/Now \d{2}:\d{2}/g, "Now 14:32")
    .replace(/port=\d+/g, "port=5432")
    .replace("Notices (unread)", "Notices")
    .replace(/localhost:\d+/g, "localhost:8200");
  // A countdown would write its own numbers back before the picture is taken.
  document.querySelectorAll("[data-until]").forEach((element) => {
    element.dataset.held = element.dataset.until;
    delete element.dataset.until;
  });
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  window.kept = [];
  document.querySelectorAll("[data-live]").forEach((part) => {
    part.append(document.createElement("template"));
    part.lastChild.dataset.sent = "yes";
  });
  const put = (place, name, text) => {
    if (place[name] === text) return;
    window.kept.push([place, name, place[name]]);
    place[name] = text;
  };
  while (walker.nextNode()) put(walker.currentNode, "data", steady(walker.currentNode.data));
  document.querySelectorAll("input[type=text]").forEach((field) => put(field, "value", steady(field.value)));
}"""
# What a new size of the window sets off, such as folding the menu, is done by the second frame.
_DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
_BACK = """() => {
  window.kept.forEach(([place, name, text]) => { place[name] = text; });
  document.querySelectorAll("[data-held]").forEach((element) => {
    element.dataset.until = element.dataset.held;
    delete element.dataset.held;
  });
  document.querySelectorAll("template[data-sent]").forEach((hold) => hold.remove());
}"""


def check(page: Page, name: str) -> None:
    """Take the picture of a screen, and keep it or compare it with the one that was approved."""
    page.evaluate(_DRAWN)
    page.evaluate(_STEADY)
    taken = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    page.evaluate(_BACK)
    file = FOLDER / f"{name}.png"
    if APPROVING:
        FOLDER.mkdir(exist_ok=True)
        taken.quantize(_COLOURS).save(file, optimize=True)
        return
    with Image.open(file) as kept:
        difference = unlike(taken, kept.convert("RGB"))
    if difference > _MOST_LOUD:
        seen = Path(gettempdir()) / f"guestkey-{name}.png"
        taken.save(seen)
        pytest.fail(f"{name} looks different ({difference:.1%}): look at {seen}, then `make screenshots`")


def unlike(one: Image.Image, other: Image.Image) -> float:
    """The share of a small grey copy in which two pictures differ loudly; 1 where their sizes do not fit."""
    if one.width != other.width or abs(one.height - other.height) > _MOST_TALLER:
        return 1.0
    size = (one.width // _SHRUNK, min(one.height, other.height) // _SHRUNK)
    small = [
        picture.crop((0, 0, one.width, size[1] * _SHRUNK)).convert("L").resize(size, Image.Resampling.BOX)
        for picture in (one, other)
    ]
    loud = ImageChops.difference(*small).point(lambda level: 255 if level > _LOUD else 0)
    return loud.histogram()[255] / (size[0] * size[1])
