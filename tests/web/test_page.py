"""The page as a person meets it, on a lab's pool: what it shows is held against packets, the API and other people's changes. It makes the pictures of docs/web.md."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.web.pages import ChromiumCrashed, Site, picture
from vnet import api
from vnet.client import VifSpec, VmChange, VmSpec
from vnet.lab import links
from vnet.lab.names import underlay_netns

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PAGES = [
    "", "map", "trace?from=web1&to=db1&protocol=tcp&port=5432", "matrix", "capture", "plan", "history", "history/1", "events", "tokens", "matrix?each=1", "new/vif", "new/security-group",
    "list/vifs", "list/hosts?q=host", "object/vif/web1%2F0", "object/vm/web1", "object/host/host1", "object/security-group/web", "object/network/shop",
]  # fmt: skip
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SCREENS: dict[str, Any] = {"phone": PHONE, "wall": {"viewport": {"width": 3840, "height": 2160}}}
NODE = "id => { const found = vnetMap.getElementById(id); return found.empty() ? null : { ...found.data(), ...found.position() }; }"
HOSTILE = "<img src=x onerror=alert(1)>"


def test_a_renderer_that_crashes_is_named(browser: Browser, site: Site) -> None:
    def wait_in_vain(page: Page) -> None:
        with suppress(Exception):
            page.goto("chrome://crash")
        page.get_by_text("what never comes").wait_for()

    with pytest.raises(ChromiumCrashed), site.open(browser) as page:
        wait_in_vain(page)


def test_a_page_that_is_left_waits_for_no_answer(browser: Browser, site: Site) -> None:
    with site.open(browser, "matrix") as page:
        page.route("**/v1/matrix?*", lambda route: None)  # it takes long
        for then in (lambda: page.get_by_role("button", name="Show").click(), lambda: site.go(page, "history")):
            page.get_by_role("button", name="Show").click()
            with page.expect_event("requestfailed", lambda request: "/v1/matrix?" in request.url):
                then()


def node(page: Page, id: str) -> Any:
    """A node or an edge of the map: its data and its place."""
    return page.evaluate(NODE, id)


def inside(page: Page, vm: str, host: str) -> bool:
    """Whether a VM is drawn within a host."""
    at, of = node(page, f"vm {vm}"), node(page, f"host {host}")
    return abs(at["x"] - of["x"]) < of["w"] / 2 and abs(at["y"] - of["y"]) < of["h"] / 2


def wait(page: Page, true: Any, text: str) -> None:
    """Wait until a picture is as it should be. The page's policy forbids what Playwright's own waiting evaluates."""
    for _ in range(600):
        if true():
            return
        page.wait_for_timeout(50)
    raise AssertionError(text)


# --- who is there ---------------------------------------------------------------------------------


def test_a_token_opens_the_page_and_stays_in_the_session(browser: Browser, site: Site) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(site.url)
    page.get_by_label("Token").fill("vnet_nobody_0")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("alert").get_by_text("give a token of the pool").wait_for()
    token = site.token("viewer")
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Overview").wait_for()
    assert token not in page.url
    assert token not in str(page.evaluate("JSON.stringify(localStorage)"))
    assert context.cookies() == []
    page.reload()
    page.get_by_role("heading", name="Overview").wait_for()
    other = context.new_page()
    other.goto(site.url)
    other.get_by_role("heading", name="Log in").wait_for()
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("heading", name="Log in").wait_for()
    assert page.evaluate("sessionStorage.length") == 0
    context.close()


def test_a_token_that_is_revoked_ends_the_page(browser: Browser, site: Site) -> None:
    made = site.client.make_token("short", api.TokenCall(role="viewer"))
    context = browser.new_context()
    page = context.new_page()
    page.goto(site.url)
    page.get_by_label("Token").fill(made.secret)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Overview").wait_for()
    site.client.revoke_token("short")
    page.get_by_role("link", name="Events", exact=True).click()
    page.get_by_role("heading", name="Log in").wait_for()
    context.close()


def test_nothing_is_offered_that_a_role_may_not_do(browser: Browser, site: Site) -> None:
    with site.open(browser, "plan", role="viewer") as page:
        page.get_by_role("button", name="Take the pool as it is").click()
        wait(page, lambda: "expectations" in page.get_by_label("Document").input_value(), "the pool's document")
        page.get_by_label("Document").fill(
            page.get_by_label("Document").input_value().replace("ports: [80, 443]", "ports: [80]")
        )
        page.get_by_role("button", name="Plan", exact=True).click()
        page.get_by_role("heading", name="1 change").wait_for()
        assert page.get_by_role("button", name="Apply").count() == 0
        menu = page.get_by_role("navigation")
        assert menu.get_by_role("link", name="Tokens").count() == menu.get_by_role("link", name="Capture").count() == 0
        site.go(page, "object/vif/web1%2F0")
        assert page.get_by_role("button", name=re.compile("Prepare|Put it there")).count() == 0
        site.go(page, "tokens")
        page.get_by_text("This takes another role than viewer").wait_for()
    scope = {"networks": ["shop"], "vms": ["web*"]}
    with site.open(browser, "list/vifs", role="operator", scope=scope) as page:
        page.get_by_role("rowheader", name="web2/0").wait_for()
        assert page.get_by_role("rowheader").all_inner_texts() == ["web1/0", "web2/0"]
        links = page.get_by_role("navigation").get_by_role("link").all_inner_texts()
        assert links[:5] == ["Overview", "Map", "Trace", "Matrix", "Events"], "the whole pool is not a tenant's"
        assert "Hosts" not in links
        site.go(page, "map")
        wait(page, lambda: node(page, "vm web1") is not None, "the tenant's VMs")
        assert node(page, "vm db1") is None
        site.go(page, "matrix")
        page.locator(".matrix button").first.wait_for()
        rows = page.locator(".matrix tbody th")
        assert [rows.nth(n).get_attribute("title") for n in range(rows.count())] == ["web1/0, web2/0"]
        for label in ("As it was at", "While these fail", "Under each single failure"):
            assert not page.get_by_label(label).is_visible(), label
        site.go(page, "trace?from=web1&to=web2")
        page.locator(".verdict", has_text="reached").wait_for()
        assert not page.get_by_label("As it was at").is_visible()
        assert "frame" not in page.get_by_label("Packet").inner_text()
        assert "line" not in page.locator(".steps").first.inner_text()


def test_what_people_call_things_is_text(browser: Browser, site: Site) -> None:
    site.client.put_vm("evil", VmSpec(title=HOSTILE))
    with site.open(browser, "trace") as page:
        page.get_by_label("From").fill(HOSTILE)
        page.get_by_label("To").fill("web1")
        page.get_by_role("button", name="Trace", exact=True).click()
        page.get_by_role("alert").get_by_text(HOSTILE).wait_for()
        site.go(page, "list/vms")
        page.get_by_role("cell", name=HOSTILE).wait_for()
        site.go(page, "object/vm/evil")
        page.locator("dd", has_text=HOSTILE).wait_for()
        assert page.locator("main img").count() == 0
    site.client.delete_vm("evil")


# --- what there is --------------------------------------------------------------------------------


def test_every_noun_of_the_api_has_a_list_and_its_filters_are_in_the_address(browser: Browser, site: Site) -> None:
    with site.open(browser) as page:
        for resource in api.RESOURCES.values():
            site.go(page, f"list/{resource.plural}")
            page.get_by_role("status").get_by_text(re.compile(r"\d+ in all")).wait_for()
        site.go(page, "list/vifs")
        page.get_by_label("Host").select_option("host1")
        page.get_by_role("status").get_by_text("3 in all").wait_for()
        page.get_by_label("Search").fill("shop")
        page.get_by_role("status").get_by_text("2 of 3").wait_for()
        assert page.url.endswith("#/list/vifs?host=host1&q=shop")
        address = page.url
        page.get_by_role("link", name="Overview").click()
        page.get_by_role("heading", name="Overview").wait_for()
        page.go_back()
        page.get_by_role("status").get_by_text("2 of 3").wait_for()
        assert page.url == address
        assert page.get_by_label("Host").input_value() == "host1"


def test_an_object_tells_where_it_is_what_judges_it_and_who_may_reach_it(browser: Browser, site: Site) -> None:
    with site.open(browser, "object/vif/web1%2F0") as page:
        page.get_by_text("ready on host1").wait_for()
        page.locator("summary", has_text="Rules in force").click()
        page.get_by_role("rowheader", name="no-mail").wait_for()
        page.locator("summary", has_text="Who may reach it").click()
        names = page.locator(".names").first
        names.wait_for()
        assert [text for text in names.locator("a").all_inner_texts() if "why" not in text] == [
            "app1/0",
            "free/0",
            "ops1/0",
            "web2/0",
        ]
        page.locator("summary", has_text="Flows, explained").click()
        page.get_by_text("where it is to go", exact=False).or_(
            page.get_by_text("what a VIF may say it is", exact=False)
        ).first.wait_for()
        page.get_by_role("row", name=re.compile("From the VM")).wait_for()


def test_a_trace_goes_there_and_back_and_names_the_line_of_the_rule(browser: Browser, site: Site) -> None:
    with site.open(browser, "trace?from=web1&to=app1&protocol=tcp&port=8085") as page:
        page.locator(".verdict", has_text="reached").wait_for()
        titles = page.locator("details.leg > summary").all_inner_texts()
        assert any(text.startswith("tcp 8085 answer from app1/0") for text in titles)
        page.locator("details.leg", has_text="tcp 8085 from web1/0").first.locator("summary").first.click()
        step = page.locator(".steps li", has_text="security group app, rule from-web").first
        step.get_by_role("button", name=re.compile(r"line \d+")).click()
        assert "from-web" in step.locator(".excerpt .here").inner_text()
        page.get_by_role("button", name="Swap both ends").click()
        page.get_by_label("Port").fill("22")
        page.get_by_role("button", name="Trace", exact=True).click()
        page.locator(".verdict", has_text="not reached").wait_for()
        assert page.url.endswith("from=app1&to=web1&protocol=tcp&port=22")
        page.evaluate("scrollTo(0, 0)")
        picture(page, "web-trace")
        page.get_by_label("As it was at").fill("1")
        page.get_by_label("Port").fill("80")
        page.get_by_role("button", name="Trace", exact=True).click()
        page.locator(".verdict", has_text="tcp 80").wait_for()
        assert page.url.endswith("protocol=tcp&port=80&at=1")


def test_the_matrix_is_gone_through_by_arrow_keys(browser: Browser, site: Site) -> None:
    with site.open(browser, "matrix") as page:
        page.get_by_label("Packet").select_option("tcp")
        page.get_by_label("Port").fill("443")
        page.get_by_role("button", name="Show").click()
        page.locator("caption", has_text="tcp 443").wait_for(state="attached")
        page.locator(".matrix button[tabindex='0']").focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.get_by_role("link", name="Trace it").click()
        page.locator(".verdict").wait_for()
        site.go(page, "matrix?protocol=tcp&port=443")
        page.get_by_role("row", name=re.compile("anybody may look at the shop")).get_by_text("holds").wait_for()


def test_the_matrix_is_of_the_past_and_of_failures(browser: Browser, site: Site) -> None:
    with site.open(browser, "matrix?protocol=tcp&port=443") as page:
        open_now = page.locator(".matrix td.yes").count()
        page.get_by_label("While these fail").select_option("host host1 down")
        page.get_by_role("button", name="Show").click()
        wait(page, lambda: page.locator(".matrix td.yes").count() < open_now, "who reaches nobody any more")
        assert page.url.endswith("#/matrix?protocol=tcp&port=443&down=host1")
        page.get_by_role("columnheader", name="While these fail").wait_for()
        page.get_by_label("Under each single failure").check()
        page.get_by_role("button", name="Show").click()
        page.locator(".matrix td.partly").first.wait_for()
        assert page.url.endswith("&each=1")
        assert page.locator(".matrix td").and_(page.locator(".yes, .partly")).count() == open_now
        page.locator(".matrix td.partly button").first.click()
        page.get_by_text(re.compile("parted by: .*(cut|down)")).wait_for()
        row = page.get_by_role("row", name=re.compile("anybody may look at the shop"))
        row.get_by_text("not under every failure").wait_for()
        page.evaluate("scrollTo(0, 0)")
        picture(page, "web-matrix")
        page.get_by_label("Under each single failure").uncheck()
        page.get_by_label("As it was at").fill("1")
        page.get_by_role("button", name="Show").click()
        page.get_by_role("columnheader", name="Then").wait_for()
        assert page.url.endswith("protocol=tcp&port=443&at=1&down=host1"), "what was chosen before is chosen again"


# --- what changes ---------------------------------------------------------------------------------


def test_a_plan_shows_who_loses_a_way_and_what_was_applied_is_taken_back(browser: Browser, site: Site) -> None:
    with site.open(browser, "plan") as page:
        text = page.get_by_label("Document")
        page.get_by_role("button", name="Take the pool as it is").click()
        wait(page, lambda: "expectations" in text.input_value(), "the pool's document")
        document = text.input_value()
        text.fill(
            document.replace("ports: [80, 443]", "ports: [80, 443, 8443]").replace(
                "ports: [22], remote: ops", "ports: [22], remote: web"
            )
        )
        page.get_by_role("button", name="Plan", exact=True).click()
        page.get_by_role("heading", name="2 changes").wait_for()
        lost = page.locator(".difference.lost")
        assert "ops1/0" in lost.first.inner_text()
        assert page.locator(".difference.gained").count() >= 1
        picture(page, "web-plan", whole=True)
        page.get_by_role("button", name="Apply…").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_text("breaks what holds now").wait_for()
        dialog.get_by_role("button", name="Apply", exact=True).click()
        assert dialog.is_visible(), "what breaks an expectation is ticked"
        dialog.get_by_label("Break these expectations").check()
        dialog.get_by_label("Why").fill("ops moved")
        dialog.get_by_role("button", name="Apply", exact=True).click()
        page.get_by_text("3 followed").wait_for()
        newest = site.client.history(1)[-1]
        assert (newest.reason, newest.caller.startswith("token network-admin")) == ("ops moved", True)
        site.go(page, f"history/{(newest.revision or 0) - 1}")
        page.get_by_role("button", name="Plan the way back").click()
        page.get_by_role("button", name="Roll back…").click()
        page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
        page.get_by_text("3 followed").wait_for()
        assert [rule.ports for rule in site.client.security_group("web").rules if rule.name == "http"] == [[80, 443]]
        site.go(page, "history")
        page.get_by_text("ops moved").first.wait_for()
        picture(page, "web-history")


def test_an_object_is_changed_by_what_the_api_says_its_calls_take(browser: Browser, site: Site) -> None:
    for name in ("spare", "web9"):
        site.client.put_vm(name, VmSpec())
        site.client.put_vif(f"{name}/0", VifSpec(network="shop", vm=name))
    with site.open(browser, "object/vm/spare", role="operator") as page:
        page.locator("summary", has_text="Change").click()
        page.get_by_label("Title").fill("free for all")
        page.get_by_role("button", name="Plan the change…").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_text("free for all").wait_for()
        dialog.get_by_text("Disruption: ").get_by_text("none").wait_for()
        dialog.get_by_label("Why").fill("it has no name yet")
        picture(page, "web-change")
        site.client.change_vm("spare", VmChange(title="theirs"))
        dialog.get_by_role("button", name="Change", exact=True).click()
        dialog.get_by_role("alert").get_by_text("The pool has changed since").wait_for()
        assert site.client.vm("spare").title == "theirs"
        dialog.get_by_text("theirs").wait_for()
        dialog.get_by_role("button", name="Change", exact=True).click()
        page.locator("dd", has_text="free for all").wait_for()
        assert site.client.vm("spare").title == "free for all"
        newest = site.client.history(1)[-1]
        assert (newest.reason, newest.caller.startswith("token operator")) == ("it has no name yet", True)
        site.go(page, "object/vif/spare%2F0")
        page.locator("summary", has_text="Change").click()
        page.get_by_label("Addresses").fill("10.6.0.300")
        page.get_by_role("button", name="Plan the change…").click()
        page.get_by_role("alert").get_by_text("10.6.0.300").first.wait_for()
        assert page.get_by_role("dialog").count() == 0
        page.get_by_label("Trunk").fill("all, 7")
        page.get_by_role("button", name="Plan the change…").click()
        assert page.get_by_label("Trunk").evaluate("input => input.validationMessage") == "all is no number"
        site.go(page, "object/security-group/web")
        page.get_by_role("heading", name="Security group web").wait_for()
        changing = page.locator("summary", has_text="Change").or_(page.get_by_text("the document’s"))
        assert changing.count() == 0, "groups are the network admins'"
        site.go(page, "object/vm/free")
        page.get_by_text("It is the document’s, and changed there").get_by_role(
            "link", name="plan and apply"
        ).wait_for()
    scope = {"networks": ["shop"], "vms": ["web*"]}
    with site.open(browser, "object/vif/web9%2F0", role="operator", scope=scope) as page:
        page.locator("summary", has_text="Change").click()
        page.get_by_label("Addresses").wait_for()
        assert page.get_by_label("Locking mode").count() == 0, "that is the whole pool's"
        site.go(page, "list/networks")
        assert page.get_by_role("link", name="New network").count() == 0
    for name in ("spare", "web9"):
        site.client.delete_vm(name)


def test_an_object_is_made_and_removed_with_what_goes_with_it(browser: Browser, site: Site) -> None:
    with site.open(browser, "list/address-sets") as page:
        page.get_by_role("link", name="New address set").click()
        page.get_by_label("Name (needed)").fill("partners")
        page.get_by_label("Addresses").fill("192.0.2.0/24, 198.51.100.7/32")
        page.get_by_role("button", name="Plan it…").click()
        page.get_by_role("dialog").get_by_role("button", name="Make").click()
        page.get_by_role("heading", name="Address set partners").wait_for()
        assert site.client.address_set("partners").addresses == ["192.0.2.0/24", "198.51.100.7/32"]
        page.locator("summary", has_text="Change").click()
        page.get_by_role("button", name="Remove address set partners…").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        page.get_by_role("heading", name="Address sets").wait_for()
        assert "partners" not in {one.name for one in site.client.address_sets()}
        site.go(page, "new/vif")
        page.get_by_label("Network (needed)").fill("shop")
        page.get_by_label("VM", exact=True).fill("guest")
        page.get_by_label("Index").fill("0")
        page.get_by_role("button", name="Plan it…").click()
        page.get_by_role("dialog").get_by_role("button", name="Make").click()
        page.get_by_role("heading", name="VIFs").wait_for()
        assert [vif.id for vif in site.client.vm("guest").vifs] == ["guest/0"]
        site.go(page, "object/vm/guest")
        page.locator("summary", has_text="Change").click()
        page.get_by_role("button", name="Remove VM guest…").click()
        page.get_by_role("dialog").get_by_text("1 other goes with it").wait_for()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        page.get_by_role("heading", name="VMs").wait_for()
        assert "guest/0" not in {vif.id for vif in site.client.vifs()}


def test_a_trial_is_told_and_taken_back(browser: Browser, site: Site) -> None:
    document = site.client.export()
    site.client.apply(document.replace("ports: [80, 443]", "ports: [80, 443, 8080]").encode(), "x", try_s=600)
    with site.open(browser) as page:
        page.get_by_role("button", name="Take it back now").click()
        page.get_by_role("heading", name=re.compile("is on trial")).wait_for(state="detached")
    assert [rule.ports for rule in site.client.security_group("web").rules if rule.name == "http"] == [[80, 443]]


def test_a_migration_moves_on_the_map_as_it_happens(browser: Browser, site: Site) -> None:
    lab = site.lab
    assert lab is not None
    with site.open(browser, "map") as page:
        wait(page, lambda: node(page, "vm ops1") is not None, "the map")
        assert inside(page, "ops1", "host3")
        site.client.prepare(api.Unit.of_vm("ops1"), "host1")
        wait(page, lambda: node(page, "move ops1") is not None, "its way is drawn")
        wait(page, lambda: node(page, "move ops1")["label"] == "preparing", "its phase is told")
        with lab.stream("web1/0", "app1/0"), lab.stream("free/0", "web2/0"):
            wait(page, lambda: "kbit/s" in node(page, "on shop host1")["label"], "traffic stands on the edge")
            wait(page, lambda: "kbit/s" in node(page, "tunnel host1 host2")["label"], "and on what goes between hosts")
            page.evaluate("vnetMap.getElementById('tunnel host1 host2').emit('tap')")
            page.get_by_role("complementary").get_by_text(re.compile(r"host1 sends [\d.]+ kbit/s, host2")).wait_for()
            page.evaluate("vnetMap.emit('tap')")
            picture(page, "web-map")
        site.client.abort(api.Unit.of_vm("ops1"))
        wait(page, lambda: node(page, "move ops1") is None, "it stays")
        lab.migrate("ops1", "host2")
        wait(page, lambda: inside(page, "ops1", "host2"), "it is where it runs")
        page.get_by_role("row", name=re.compile("host2")).first.get_by_text("ops1").wait_for()
        page.get_by_label("Find").fill("ops")
        wait(page, lambda: page.url.endswith("#/map?q=ops"), "the search is in the address")
        assert page.evaluate("vnetMap.getElementById('vm web1').hasClass('faint')")
        assert not page.evaluate("vnetMap.getElementById('vm ops1').hasClass('faint')")
        lab.migrate("ops1", "host3")
        wait(page, lambda: inside(page, "ops1", "host3"), "and back")


def test_a_host_that_is_cut_off_is_told_with_what_to_do(browser: Browser, site: Site) -> None:
    lab = site.lab
    assert lab is not None
    with site.open(browser, "map") as page:
        wait(page, lambda: node(page, "tunnel host1 host3") is not None, "the map")
        lab.cut("host3")
        try:
            wait(page, lambda: node(page, "tunnel host1 host3")["health"] == "bad", "nothing passes there")
            assert node(page, "tunnel host1 host2")["health"] == "good"
            page.get_by_role("row", name=re.compile("host1 – host3")).get_by_text("no frame passes").wait_for()
            site.go(page, "")
            page.get_by_role("row", name=re.compile("tunnels-cut")).get_by_text("cable").wait_for()
        finally:
            lab.heal("host3")
        page.get_by_text("Hosts have stated nothing that is wrong.").wait_for()
        page.get_by_role("button", name="Have hosts look now").click()
        page.get_by_text("6 ways through tunnels and 3 uplinks were looked at").wait_for()


def test_a_host_with_a_cable_that_is_out_is_coloured_on_the_map(browser: Browser, site: Site) -> None:
    assert site.lab is not None
    netns, port = underlay_netns(site.lab.spec.name), "h0n0"  # the physical switch's port of host1
    with site.open(browser, "map") as page:
        wait(page, lambda: (node(page, "host host1") or {}).get("health") == "good", "the map")
        links.change(netns, lambda underlay: underlay.set(port, state="down"))
        try:
            wait(page, lambda: node(page, "host host1")["health"] == "warn", "it is coloured")
            assert node(page, "host host2")["health"] == "good"
        finally:
            links.change(netns, lambda underlay: underlay.set(port, state="up"))
        wait(page, lambda: node(page, "host host1")["health"] == "good", "and is not any more")


def test_a_capture_is_a_whole_file(browser: Browser, site: Site, tmp_path: Path) -> None:
    lab = site.lab
    assert lab is not None
    with (
        site.open(browser, "capture?vifs=web1&seconds=60", accept_downloads=True) as page,
        lab.stream("web1/0", "app1/0"),
    ):
        page.get_by_role("button", name="Capture", exact=True).click()
        wait(page, lambda: "kB" in page.locator("main .mono").last.inner_text(), "frames come")
        page.get_by_role("button", name="Stop").click()
        with page.expect_download() as downloading:
            page.get_by_role("link", name="Download").click()
        downloading.value.save_as(tmp_path / "out.pcapng")
    data = (tmp_path / "out.pcapng").read_bytes()
    from scapy.utils import rdpcap

    assert data[:4] == b"\x0a\x0d\x0d\x0a"
    assert len(rdpcap(str(tmp_path / "out.pcapng"))) > 10


# --- for everybody --------------------------------------------------------------------------------


@pytest.mark.parametrize("look", ["light", "dark", "phone", "wall"])
def test_nothing_that_axe_finds_keeps_anybody_out(browser: Browser, site: Site, look: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    context: dict[str, Any] = SCREENS.get(look) or {"color_scheme": look}
    # axe itself is evaluated in the page, which its policy forbids to others.
    with site.open(browser, bypass_csp=True, **context) as page:
        for path in PAGES:
            site.go(page, path)
            page.wait_for_timeout(300)
            found = Axe().run(page)
            assert found.violations_count == 0, f"{path}: {found.generate_report()}"
            overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert overflow <= 0, f"{path} is {overflow} pixels wider than the screen"


def test_the_keyboard_reaches_everything(browser: Browser, site: Site) -> None:
    with site.open(browser) as page:
        page.get_by_role("link", name="Skip to content").focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.get_by_role("link", name="Networks", exact=True).first.focus()
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Networks").wait_for()
        wait(page, lambda: page.evaluate("document.activeElement.id") == "main", "a new page has the focus")
    with site.open(browser, **PHONE) as page:
        menu = page.get_by_role("button", name="Menu")
        assert not page.get_by_role("link", name="Matrix").is_visible()
        menu.focus()
        page.keyboard.press("Enter")
        page.get_by_role("link", name="Matrix").wait_for()
        assert menu.get_attribute("aria-expanded") == "true"
        page.keyboard.press("Escape")
        page.get_by_role("link", name="Matrix").wait_for(state="hidden")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Menu"


def test_pictures(browser: Browser, site: Site) -> None:
    with site.open(browser) as page:
        picture(page, "web-overview")
        site.go(page, "object/vif/web1%2F0")
        page.get_by_role("row", name=re.compile("From the VM")).wait_for()
        picture(page, "web-vif")
    with site.open(browser, "map", color_scheme="dark") as page:
        wait(page, lambda: node(page, "vm ops1") is not None, "the map")
        page.wait_for_timeout(500)
        picture(page, "web-map-dark")
    with site.open(browser, "map", **PHONE) as page:
        wait(page, lambda: node(page, "vm ops1") is not None, "the map")
        page.wait_for_timeout(500)
        picture(page, "web-map-phone")
