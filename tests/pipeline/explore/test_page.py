"""The explorer on a real run, in a real browser and without one."""

from __future__ import annotations

import csv
import http.client
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import urlopen

import pytest

from serving.clients.grpc_client import RetrievalClient
from tests.builders import HOSTILE, free_port, wait_for
from tests.pipeline.two_clubs import (
    ROOT,
    TWO_TOWER,
    Command,
    explorer,
    run_to_summary,
    write_two_clubs,
)

pytestmark = pytest.mark.slow

USER = f"?q={quote('user 1')}"
KINDS = ("even", HOSTILE)


@pytest.fixture(scope="module")
def address(
    finished_run: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of an explorer of the finished run, with hostile names of items."""
    items = tmp_path_factory.mktemp("items") / "items.csv"
    with items.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["item", "label", "price", "kind"])
        named = ((f"item é{i}", f"Thing number {i} {HOSTILE}", i) for i in range(60))
        rows.writerows([item, name, i % 7, KINDS[i % 2]] for item, name, i in named)
    kind = "candidates.features.kind={kind: categorical, learn: false}"
    changes = [f"candidates.file={items}", kind, "index.filters=[kind]"]
    options = [word for change in changes for word in ("--set", change)]
    with explorer(finished_run["config_path"], *options) as found:
        yield found


@pytest.fixture
def page(chromium: Any, address: str) -> Iterator[Any]:
    with checked_page(chromium, address) as found:
        yield found


@contextmanager
def checked_page(chromium: Any, address: str) -> Iterator[Any]:
    """Open a page that must neither log anything nor ask another server."""
    found = chromium.new_page(viewport={"width": 1280, "height": 900})
    problems: list[str] = []
    found.on("console", lambda message: problems.append(message.text))
    found.on("pageerror", lambda error: problems.append(str(error)))
    found.on("request", lambda request: problems.extend(foreign(request.url, address)))
    yield found
    found.close()
    assert problems == []


def foreign(url: str, address: str) -> list[str]:
    return [] if url.startswith((address, "data:")) else [url]


def items_in(page: Any, place: str) -> list[int]:
    """Return the numbers of the items in a list."""
    texts = page.locator(f"{place} > ol > li > .name, {place} > ul > li > .name").all_inner_texts()
    return [int(re.findall(r"\d+", text)[0]) for text in texts]


def both_lists(page: Any) -> list[list[int]]:
    return [items_in(page, f"#answers > .answer:nth-child({place})") for place in (1, 2)]


def get(address: str, path: str = "", **headers: str) -> http.client.HTTPResponse:
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.hostname or "", url.port)
    connection.request("GET", f"/{path}", headers=headers)
    return connection.getresponse()


def test_a_known_query_gets_unseen_items_with_reasons(page: Any, address: str) -> None:
    page.goto(address + USER)
    found = items_in(page, "#answers .answer")
    assert len(found) == 10
    assert all(item < 30 for item in found)
    assert page.locator("#history .name").count() == 14
    past = set(page.locator("#history .name").all_text_contents())  # some are folded away
    for item in page.locator("#answers ol > li").all():
        assert item.locator(".name").inner_text() not in past
        assert "score" in item.inner_text()
        shares = [int(text.rstrip("%")) for text in item.locator(".share").all_inner_texts()]
        assert shares == sorted(shares, reverse=True)
        assert 0 < sum(shares) <= 100
        reasons = item.locator(".reasons bdi").all_inner_texts()
        assert {name.split()[2] for name in reasons} <= {name.split()[2] for name in past}
    assert "club: red" in page.inner_text("main")


def test_hostile_text_stays_text(page: Any, address: str) -> None:
    given = [*((name, HOSTILE) for name in "qxmtw"), (f"f.{HOSTILE}", HOSTILE)]
    page.goto(f"{address}?{urlencode([*given, ('h', 'item é3'), ('s', 'item é3')])}")
    assert page.locator("img").count() == 0
    assert page.input_value("#q") == page.input_value("#t") == HOSTILE
    assert "there is no model or baseline" in page.inner_text("#answers")
    page.goto(f"{address}?h={quote('item é3')}")
    assert page.locator("#answers .name").first.inner_text().endswith(HOSTILE)
    assert page.locator("img").count() == 0


def test_everything_works_by_keyboard(page: Any, address: str) -> None:
    page.goto(address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.focus("#t")
    page.keyboard.type("number 41")
    wait_for(lambda: page.locator("#found li").count() == 1)
    assert page.evaluate("document.activeElement.id") == "t"
    page.keyboard.press("Tab")  # the button
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#history li")
    assert page.evaluate("document.activeElement.id") == "found"
    assert items_in(page, "#history") == [41]
    found = items_in(page, "#answers .answer")
    assert sum(item >= 30 for item in found) >= 8
    shared = page.url
    # Exclude the first recommendation, and take that back.
    page.locator("#answers a:text('Exclude')").first.press("Enter")
    wait_for(lambda: "Excluded" in page.inner_text("#history"))
    assert items_in(page, "#answers .answer")[:9] == found[1:]
    page.go_back()
    wait_for(lambda: "Excluded" not in page.inner_text("#history"))
    assert page.url == shared
    assert items_in(page, "#answers .answer") == found
    page.locator("#answers a:text('Similar')").first.press("Enter")
    page.wait_for_selector("#similar")
    assert page.evaluate("document.activeElement.id") == "similar-title"
    assert found[0] not in items_in(page, "#similar")
    page.locator("#answers a:text('Why')").first.press("Enter")
    page.wait_for_selector("#why")
    assert page.locator("#why .share").all_inner_texts() == ["+100%"]


def test_a_url_shows_the_same_to_others_also_without_scripts(
    chromium: Any, page: Any, address: str
) -> None:
    page.goto(address + USER)
    page.check("input[name=seen]")
    wait_for(lambda: "seen=1" in page.evaluate("location.href"))
    page.fill("#k", "3")
    page.locator("#k").press("Tab")
    wait_for(lambda: "k=3" in page.evaluate("location.href"))
    found = items_in(page, "#answers .answer")
    assert len(found) == 3
    plain = chromium.new_context(java_script_enabled=False).new_page()
    plain.goto(page.url)
    assert items_in(plain, "#answers .answer") == found
    plain.click("text=Apply")
    assert plain.url == page.url  # no parameters that are empty or defaults
    plain.click("text=Start again")
    assert plain.url == address
    plain.click("text=A random one")
    assert re.search(r"\?q=user\+\d+$", plain.url)
    plain.context.close()


def test_a_baseline_is_shown_side_by_side_and_filtered(page: Any, address: str) -> None:
    page.goto(address + USER)
    page.select_option("#c", "baseline-item_knn")
    page.wait_for_selector("h2:text-is('Compared')")
    model, baseline = page.locator("#answers > .answer").all()
    assert "baseline item_knn" in baseline.inner_text()
    numbers = both_lists(page)
    for card, mine, other in zip((model, baseline), numbers, reversed(numbers), strict=True):
        for item, text in zip(mine, card.locator(".score").all_inner_texts(), strict=True):
            place = f"#{other.index(item) + 1} in the other list" if item in other else "only here"
            assert place in text
    assert all(item < 30 for item in numbers[1])
    page.click("summary:has-text('kind')")
    page.locator("input[name='f.kind']").first.check()
    # The model was made without this filter; the baseline reads the file of the candidates.
    wait_for(lambda: "has no filter 'kind'" in model.inner_text())
    assert all(item % 2 for item in items_in(page, "#answers > .answer:nth-child(2)"))
    assert page.locator("#filter-kind").get_attribute("open") is not None


def test_the_page_fits_a_telephone_in_the_dark(chromium: Any, address: str) -> None:
    page = chromium.new_page(viewport={"width": 360, "height": 800}, color_scheme="dark")
    page.goto(f"{address}{USER}&s={quote('item é3')}&w={quote('item é3')}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 21, 27)"
    page.close()


def test_only_this_machine_gets_answers_and_nothing_is_loaded_from_elsewhere(address: str) -> None:
    answer = get(address)
    assert answer.status == 200
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    text = answer.read().decode()
    assert not re.findall(r"(?:src|href)=\"(?!\./|#|data:)", text)
    assert get(address, Host="attacker.example").status == 403
    assert get(address, "?k=x&unknown=1&q=%FF%00").status in (200, 302)
    assert get(address, "..%2f..%2fetc/passwd").status == 404


@pytest.mark.long
def test_versions_runs_and_baselines_are_compared_under_the_same_filters(
    chromium: Any, tmp_path: Path, two_tower: Command
) -> None:
    features = {"label": {"kind": "categorical"}}
    sections = {"candidates": {"features": features}, "index": {"filters": ["label"]}}
    config = write_two_clubs(tmp_path, **sections)
    rows = "".join(f"item é{i},{'odd' if i % 2 else 'even'},1\n" for i in range(60))
    (tmp_path / "items.csv").write_text(f"item,label,price\n{rows}", encoding="utf-8")
    first = run_to_summary(two_tower, config)["pushed_version"]
    brief = ("--set", "training.epochs=10", "--push")
    second = run_to_summary(two_tower, config, *brief)["pushed_version"]
    impossible = "evaluation.min_metrics={hit_rate@10: 0.99}"
    done = two_tower("run", "--config", str(config), "--json", "--push", "--set", impossible)
    assert done.returncode == 3, done.stderr
    refused = json.loads(done.stdout)["run_id"]
    v1, v2, run = f"version-{first}", f"version-{second}", f"run-{refused}"
    with explorer(config, "--run", refused) as address:
        for keys in [("", v1), (v1, v2), (v2, run), (run, "baseline-item_knn")]:
            with checked_page(chromium, address) as page:
                page.goto(f"{address}?{urlencode({'q': 'user 1', 'm': keys[0]})}")
                page.select_option("#c", keys[1])
                page.wait_for_selector("h2:text-is('Compared')", timeout=120_000)  # a server starts
                page.click("summary:has-text('label')")
                page.check("input[type=checkbox][value=odd]")
                wait_for(lambda: "f.label=odd" in page.evaluate("location.href"))
                excluded, *others = both_lists(page)[0]
                page.locator("#answers a:text('Exclude')").first.click()
                wait_for(lambda: "Excluded" in page.inner_text("#history"))
                shown = both_lists(page)
                assert shown[0][: len(others)] == others
                for key, numbers, title in zip(
                    keys, shown, page.locator(".answer > p.muted").all_inner_texts(), strict=True
                ):
                    assert (key or run).replace("-", " ", 1) in title
                    assert len(numbers) == 10
                    assert all(number % 2 for number in numbers)
                    assert excluded not in numbers
                url = page.evaluate("location.href")
            with checked_page(chromium, address) as page:
                page.goto(url)
                assert both_lists(page) == shown
                assert tuple(page.input_value(name) for name in ("#m", "#c")) == keys
                assert page.is_checked("input[type=checkbox][value=odd]")
                assert f"é{excluded}" in page.inner_text("#history")


def test_serve_explore_asks_the_server_and_ends_with_it(finished_run: dict[str, Any]) -> None:
    port, page_port = free_port(), free_port()
    words = ["serve", "--config", str(finished_run["config_path"]), "--port", str(port)]
    more = ["--rest-port", "0", "--explore", "--explore-port", str(page_port)]
    server = subprocess.Popen([*TWO_TOWER, *words, *more], cwd=ROOT)
    address = f"http://127.0.0.1:{page_port}/"
    try:
        text = wait_for(lambda: text_of(address + USER), 120)
        assert f"version {finished_run['pushed_version']}" in text
        assert f"model of 127.0.0.1:{port}" in text
        with RetrievalClient(f"127.0.0.1:{port}", query_id_name="user") as client:
            assert client.status()[0].is_available
    finally:
        server.terminate()
    assert server.wait(30) == 0
    wait_for(lambda: text_of(address) is None, 10)


def text_of(url: str) -> str | None:
    try:
        with urlopen(url) as answer:
            return str(answer.read(), "utf-8")
    except OSError:
        return None
