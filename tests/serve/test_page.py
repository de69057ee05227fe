"""The page in a real browser: a person types, clicks, and sees the lists change."""

import json
from pathlib import Path

from recjax.serve.limits import Limits
from tests.serve.browser import browsing
from tests.serve.site import running, served

FOUND, HISTORY, LIST = "found", "history", "list"


def ids(part: str) -> str:
    """JavaScript: the item ids that a part of the page shows, as JSON."""
    return f"JSON.stringify([...document.querySelectorAll('#{part} button')].map(b => b.dataset.id))"


def test_a_person_types_items_and_sees_the_lists_change(tmp_path: Path):
    with running(served(), Limits(k=7, users=2)) as site, browsing(tmp_path / "profile") as browser:
        home = f"http://127.0.0.1:{site.port}/"
        browser.open(home)
        assert "22 items of toy" in browser.until("document.querySelector('#about').innerText")
        popular = json.loads(browser.until(f"{ids(FOUND)} !== '[]' && {ids(FOUND)}"))
        assert len(popular) == 12 and browser.value(ids(LIST)) == "[]"

        browser.click("#search")
        browser.type("lamp re")
        wanted = [item["item_id"] for item in site.ask("GET", "/v1/items?search=lamp%20re&limit=12")[1]["items"]]
        browser.until(f"{ids(FOUND)} === {json.dumps(json.dumps(wanted, separators=(',', ':')))}")
        browser.click("#found button")
        first = json.loads(browser.until(f"{ids(LIST)} !== '[]' && {ids(LIST)}"))
        assert first == site.listed(history=wanted[:1]) and json.loads(browser.value(ids(HISTORY))) == wanted[:1]

        browser.click("#list li:nth-child(3) button")
        history = [wanted[0], first[2]]
        browser.until(f"{ids(HISTORY)} === {json.dumps(json.dumps(history, separators=(',', ':')))}")
        second = site.listed(history=history)
        browser.until(f"{ids(LIST)} === {json.dumps(json.dumps(second, separators=(',', ':')))}")
        assert browser.value("document.querySelectorAll('#list .new').length") == len(set(second) - set(first))
        assert f"item={history[1]}" in browser.value("location.search")

        browser.click("#history button")
        third = json.dumps(json.dumps(site.listed(history=history[1:]), separators=(",", ":")))
        browser.until(f"{ids(LIST)} === {third}")
        browser.open(browser.value("location.href"))  # a kept address gives the same page
        browser.until(f"document.readyState === 'complete' && {ids(LIST)} === {third}")
        browser.click("#clear")
        browser.until(f"{ids(LIST)} === '[]' && {ids(HISTORY)} === '[]'")

        sent = [event["params"] for event in browser.events if event.get("method") == "Network.requestWillBeSent"]
        addresses = {each["request"]["url"] for each in sent}
        assert len(addresses) > 5 and all(address.startswith((home, "data:,", "about:")) for address in addresses)
        problems = [
            event for event in browser.events if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded")
        ]
        assert not problems


def test_the_page_shows_what_is_wrong(tmp_path: Path):
    run = served(params={name: table * float("nan") for name, table in served().params.items()})
    with running(run, Limits(k=20)) as site, browsing(tmp_path / "profile") as browser:
        browser.open(f"http://127.0.0.1:{site.port}/?item=i1&search=%3Cimg%20src%3Dx%3E")
        assert "not finite" in browser.until("document.querySelector('#error')?.innerText")
        assert browser.value("document.querySelector('#found').innerText") == "No item has all of these words."
