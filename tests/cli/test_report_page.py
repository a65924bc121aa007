"""The page of `quantize --report`: opened in a browser, read, sorted, filtered, and looked at in light and dark."""

from __future__ import annotations

import re
import struct
import time
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from graphopt.cli.screen import Screen
from graphopt.errors import UsageError
from graphopt.report import schema
from graphopt.report.html import page, write

from . import browser
from .made_quantized import HOSTILE, large, minilm, troubled

# One worker starts one browser for all tests here.
pytestmark = pytest.mark.xdist_group("browser")

ROWS = "Array.from(document.querySelectorAll('#sites tbody tr'))"
SHOWN = f"{ROWS}.filter(row => row.offsetHeight)"


class Seen(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action") or name[:2] == "on"]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Tab]:
    program = browser.find()
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(browser.NAMES)} is installed")
    with browser.browser(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def order(tab: browser.Tab, column: int) -> list[str]:
    """The texts of a column as the rows stand."""
    found: list[str] = tab.run(f"{ROWS}.map(row => row.cells[{column}].textContent)")
    return found


def click(tab: browser.Tab, column: int) -> str:
    """Clicks a column's title as a reader does, at its place; the order that the title then states."""
    button = f"document.querySelectorAll('#sites th button')[{column}]"
    x, y = tab.run(
        f"(() => {{ {button}.scrollIntoView({{block: 'center'}}); const box = {button}.getBoundingClientRect();"
        " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    stated: str = tab.run(f"{button}.parentElement.ariaSort")
    return stated


def background(picture: Path) -> tuple[int, int, int]:
    """The color of a PNG's first pixel; the first of a row is stored as it is, whatever its filter."""
    data, at, packed = picture.read_bytes(), 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        packed += data[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += size + 12
    red, green, blue = zlib.decompress(packed)[1:4]
    return red, green, blue


def test_the_page_is_read_sorted_and_filtered(tab: browser.Tab, tmp_path: Path) -> None:
    report = schema.quantization(minilm())
    write(report, str(tmp_path / "report.html"))
    tab.open(tmp_path / "report.html")
    names, micros = ([site[key] for site in report["sites"]] for key in ("name", "micros"))

    text = tab.run("document.body.innerText")
    for said in ("minilm-l6.onnx", "1.85x faster", "0.99934", "58.9 MB", "83 %", "integers cost more than the budget"):
        assert said in text
    assert order(tab, 1) == names

    slowest = [names[index] for index in sorted(range(36), key=lambda index: -micros[index])]
    assert click(tab, 8) == "descending"
    assert order(tab, 1) == slowest
    assert click(tab, 8) == "ascending"
    assert order(tab, 1) == slowest[::-1]
    assert click(tab, 1) == "ascending"
    assert order(tab, 1) == sorted(names)
    assert tab.run("document.querySelectorAll('#sites th[aria-sort]').length") == 1

    tab.run("document.querySelectorAll('#sites th button')[0].focus()")
    tab.press("Enter", 13)
    assert order(tab, 1) == names

    tab.run("document.getElementById('filter').focus()")
    tab.call("Input.insertText", text="FFN.down layer.3")
    assert tab.run(f"{SHOWN}.map(row => row.cells[1].textContent)") == ["/encoder/layer.3/output/dense/MatMul_output_0"]
    assert tab.run("document.getElementById('count').value") == "1 of 36 sites"


def test_it_is_light_and_dark(tab: browser.Tab, tmp_path: Path) -> None:
    write(schema.quantization(troubled()), str(tmp_path / "report.html"))
    tab.open(tmp_path / "report.html")
    pictures = {scheme: tmp_path / f"{scheme}.png" for scheme in ("light", "dark")}
    for scheme, path in pictures.items():
        tab.prefer(scheme)
        tab.picture(path)
    assert min(background(pictures["light"])) > 240
    assert max(background(pictures["dark"])) < 40

    tab.run("document.getElementById('theme').click()")
    tab.picture(pictures["dark"])
    assert min(background(pictures["dark"])) > 240


def test_hostile_names_are_text(tab: browser.Tab, tmp_path: Path) -> None:
    write(schema.quantization(troubled()), str(tmp_path / "report.html"))
    tab.open(tmp_path / "report.html")
    assert order(tab, 1)[:4] == list(HOSTILE)
    assert tab.run("document.title") != "owned"
    assert tab.run("document.querySelectorAll('img, #sites b, script').length") == 1
    assert not [event for event in tab.events if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
    asked = [
        event["params"]["request"]["url"] for event in tab.events if event["method"] == "Network.requestWillBeSent"
    ]
    assert asked == [(tmp_path / "report.html").as_uri()]


def test_a_script_that_is_not_the_pages_own_does_not_run(tab: browser.Tab, tmp_path: Path) -> None:
    text = page(schema.quantization(minilm())).replace("<body>", "<body><script>document.title = 'owned'</script>")
    (tmp_path / "report.html").write_text(text)
    tab.open(tmp_path / "report.html")
    assert tab.run("document.title") == "minilm-l6.onnx: graphopt quantize"
    assert tab.run("document.getElementById('theme').textContent") in ("Light", "Dark")


def test_ten_thousand_sites_do_not_hang_it(tab: browser.Tab, tmp_path: Path) -> None:
    write(schema.quantization(large(10_000)), str(tmp_path / "report.html"))
    begin = time.perf_counter()
    tab.open(tmp_path / "report.html")
    assert click(tab, 8) == "descending"
    assert tab.run(f"{SHOWN}.length") == 500
    assert time.perf_counter() - begin < 30
    assert tab.run(f"{ROWS}.length") == 10_000
    assert tab.run("document.getElementById('count').value") == "500 of 10,000 sites"


def test_it_is_whole_without_a_browser_and_asks_for_nothing() -> None:
    text = page(schema.quantization(troubled()))
    seen = Seen(text)
    assert not seen.links
    assert not re.search(r"url\(|@import|https?:", text)
    assert seen.tags.count("script") == seen.tags.count("style") == 1
    assert not {"img", "iframe", "object", "link"} & set(seen.tags)
    said = "".join(seen.texts)
    for name in HOSTILE:
        assert name in said
    for part in ("1.10x slower", "the activation is float16", "excluded by --exclude", "GO141", "nothing was written"):
        assert part in said


def test_what_was_not_measured_is_said() -> None:
    report = schema.quantization(minilm())
    bare = report | {"accuracy": None, "latency": None, "latency_wall": None, "steps": [], "sites": [], "groups": []}
    bare |= {"unfused": [], "integer": {"planned": 0, "running": 0, "all": 0, "share": 0.0}}
    said = "".join(Seen(page(bare)).texts)
    assert said.count("not measured") == 2
    assert "no product with constant weights" in said
    assert "nan" not in said.lower()


def test_numbers_that_are_none_are_dashes() -> None:
    report = schema.quantization(minilm())
    report["accuracy"]["holdout"] = float("nan")
    report["latency"] = {"ratio": float("nan"), "interval": [float("nan")] * 2, "pairs": 25}
    report["steps"][1]["metric"] = float("-inf")
    said = "".join(Seen(page(report)).texts)
    assert "no difference shown" in said
    assert "–" in said
    assert not re.search(r"\bnan\b|\binf\b", said)


@pytest.mark.parametrize("name", ["gone/report.html", ".", "model.onnx", "report.json", "notes.html"])
def test_it_overwrites_nothing_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.html").write_text("<!doctype html>")
    screen = Screen(str(tmp_path / "report.json"), quiet=True, verbose=False, color=False)
    with pytest.raises(UsageError) as error:
        screen.refuse_page_at(str(tmp_path / name), tmp_path / "model.onnx")
    assert error.value.code == "GO014"


def test_it_overwrites_itself(tmp_path: Path) -> None:
    path = str(tmp_path / "report.html")
    screen = Screen(None, quiet=True, verbose=False, color=False)
    screen.refuse_page_at(path, tmp_path / "model.onnx")
    write(schema.quantization(minilm()), path)
    screen.refuse_page_at(path, tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="cannot be written"):
        write(schema.quantization(minilm()), str(tmp_path / "gone" / "report.html"))
