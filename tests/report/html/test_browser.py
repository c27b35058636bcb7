"""The page in a real browser (Chromium): no errors, no network, its policy kept, nothing wider than a phone."""

from __future__ import annotations

import copy
import functools
import http.server
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.html.bundles import SETTINGS, bundle, report, search
from tsmerge_export.report.html import report_page
from tsmerge_export.report.html.document import policy

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
image = pytest.importorskip("matplotlib.image", reason="matplotlib is not installed: pip install matplotlib")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")

_PATIENCE = 180_000  # milliseconds; a loaded machine is slow to draw
SCREENS = {"phone": (390, 844), "desktop": (1280, 900)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=_PATIENCE)
        yield opened
        opened.close()


class Visit:
    """A page that was opened, and what happened meanwhile."""

    def __init__(self, browser: Any, address: str, screen: str = "desktop", scheme: str = "light") -> None:
        width, height = SCREENS[screen]
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, is_mobile=screen == "phone",
            has_touch=screen == "phone",
        )  # fmt: skip
        self.context.set_default_timeout(_PATIENCE)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address, wait_until="load")

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("family", SETTINGS)
def test_opens(family: str, screen: str, browser: Any, tmp_path: Path) -> None:
    address = (bundle(family) / "report.html").as_uri()
    with Visit(browser, address, screen, "dark" if screen == "phone" else "light") as visit:
        page = visit.page
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        assert visit.said == []
        assert visit.requests == [address]
        assert page.title().startswith(f"{family}: ")
        width = SCREENS[screen][0]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("window.innerWidth") == width
        assert page.locator("svg[role=img]").count() == len(report(family)["example"]["series"]) + 2
        # A picture that is there but not drawn has no box.
        for box in (one.bounding_box() for one in page.locator("svg[role=img]").all()):
            assert box is not None and box["height"] > 80
        page.screenshot(path=tmp_path / "top.png")
        colours(tmp_path / "top.png", page.evaluate("getComputedStyle(document.body).backgroundColor"))
        for name in ("forecasts", "tokens", "pareto"):
            page.locator(f"section[aria-labelledby={name}] svg[role=img]").first.screenshot(
                path=tmp_path / "p.png"
            )
            colours(tmp_path / "p.png")


def colours(file: Path, page: str | None = None) -> None:
    """There is real content: several colours, none of which is all of it; the style sheet was applied."""
    pixels = (image.imread(file)[..., :3] * 255).round().astype(int)
    count = Counter(map(tuple, pixels.reshape(-1, 3).tolist()))
    assert len(count) > 20
    assert count.most_common(1)[0][1] < 0.97 * pixels[..., 0].size
    if page is not None:
        assert page != "rgba(0, 0, 0, 0)"


@pytest.mark.parametrize("horizon", [1, 16])
def test_lines_that_are_one_are_both_seen(horizon: int, browser: Any, tmp_path: Path) -> None:
    """Merged and unmerged forecasts that are equal: taking away either changes the picture."""
    content = copy.deepcopy(report("chronos-bolt"))
    (one, *_) = content["example"]["series"]
    one["target"] = one["target"][:horizon]
    one["unmerged"] = {name: values[:horizon] for name, values in one["unmerged"].items()}
    one["merged"] = one["unmerged"]
    file = tmp_path / "page.html"
    file.write_text(report_page(content), encoding="utf-8")
    with Visit(browser, file.as_uri()) as visit:
        chart = visit.page.locator("section[aria-labelledby=forecasts] svg.chart").first

        def pixels() -> Any:
            chart.screenshot(path=tmp_path / "chart.png")
            return image.imread(tmp_path / "chart.png")[..., :3]

        whole = pixels()
        for kind in ("unmerged", "merged"):
            lines = chart.locator(f".{kind}:not(.band)")
            assert lines.count() >= 1
            lines.evaluate_all("all => all.forEach(one => { one.style.visibility = 'hidden' })")
            changed = np.abs(pixels() - whole).max(axis=-1) > 0.2
            lines.evaluate_all("all => all.forEach(one => { one.style.visibility = '' })")
            assert changed.sum() >= 50


def test_the_newest_steps_of_a_strip_are_in_sight(browser: Any) -> None:
    address = (bundle("chronos-t5") / "report.html").as_uri()
    with Visit(browser, address, "phone") as visit:
        sides = """() => {
            const strip = document.querySelector('.strip .scroll'), inner = strip.firstElementChild
            const a = strip.getBoundingClientRect(), b = inner.getBoundingClientRect()
            return [a.left, a.right, b.left, b.right]
        }"""
        left, right, oldest, newest = visit.page.evaluate(sides)
        assert oldest < left - 20  # there is more than a phone can show
        assert abs(newest - right) < 1
        visit.page.evaluate("document.querySelector('.strip .scroll').scrollBy(-1e6, 0)")
        assert abs(visit.page.evaluate(sides)[2] - left) < 1  # and the oldest can be reached


def test_light_and_dark(browser: Any) -> None:
    address = (bundle("mamba2") / "report.html").as_uri()
    shades = []
    for scheme in ("light", "dark"):
        with Visit(browser, address, scheme=scheme) as visit:
            colour = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
            shades.append(np.mean([int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(",")]))
    assert shades[0] > 200 and shades[1] < 60


def test_a_search_fits_a_phone(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "searched.html"
    file.write_text(report_page({**report("chronos-bolt"), "search": search()}), encoding="utf-8")
    with Visit(browser, file.as_uri(), "phone") as visit:
        assert visit.said == []
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
        assert visit.page.locator("circle.chosen").bounding_box() is not None


class _Handler(http.server.SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", f"{policy()}; sandbox; frame-ancestors 'none'")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_served_under_a_strict_policy(browser: Any) -> None:
    """The server's policy forbids everything but the style sheet; the page asks for nothing, not even an icon."""
    asked: list[str] = []

    class Handler(_Handler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

    handler = functools.partial(Handler, directory=str(bundle("chronos-t5")))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            with Visit(browser, f"http://127.0.0.1:{server.server_port}/report.html") as visit:
                visit.page.wait_for_timeout(300)
                assert visit.said == []
                assert visit.page.evaluate("getComputedStyle(document.body).marginTop") == "0px"
        finally:
            server.shutdown()
    assert asked == ["/report.html"]


@pytest.mark.parametrize(
    "smuggled",
    [
        "<script>document.title='owned'</script>",
        "<p style='color:red'>styled</p>",
        "<img src='http://127.0.0.1:9/x.png' alt=''>",
        "<style>body { margin: 9px }</style>",
    ],
)
def test_the_policy_holds_and_would_be_seen(smuggled: str, browser: Any, tmp_path: Path) -> None:
    """What the page must not have is refused by its own policy, and these tests would notice."""
    text = (bundle("mamba2") / "report.html").read_text(encoding="utf-8")
    file = tmp_path / "tampered.html"
    file.write_text(text.replace("<main>", f"<main>{smuggled}"), encoding="utf-8")
    with Visit(browser, file.as_uri()) as visit:
        assert any("Content Security Policy" in message for message in visit.said)
        assert visit.page.title() != "owned"
        assert visit.page.evaluate("getComputedStyle(document.body).marginTop") == "0px"
