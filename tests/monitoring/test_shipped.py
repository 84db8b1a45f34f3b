"""The alert rules and dashboards that are shipped: they ask for metrics that there are, and each alert is explained."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "packaging" / "prometheus" / "vnet.rules.yaml"
DASHBOARDS = sorted((ROOT / "packaging" / "grafana").glob("*.json"))
SOURCES = [ROOT / "vnet" / part / "metrics.py" for part in ("agent", "controller")]
SUFFIXES = ("_bucket", "_sum", "_count")


def declared() -> set[str]:
    """The names of metrics in the code; those of a loop over units are spelled out."""
    names = {name for path in SOURCES for name in re.findall(r'"(vnet_[a-z_]+)"', path.read_text())}
    units = ("packets", "bytes", "dropped_packets")
    return names | {f"vnet_{noun}_{unit}_total" for noun in ("vif", "device") for unit in units}


def asked(expressions: Iterator[str]) -> set[str]:
    found = {name for text in expressions for name in re.findall(r"\bvnet_[a-z_]+", text)}
    return {next((name.removesuffix(it) for it in SUFFIXES if name.endswith(it)), name) for name in found}


def alerts() -> dict[str, str]:
    return {
        rule["alert"]: rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    }


def test_rules_and_dashboards_ask_for_metrics_that_there_are() -> None:
    boards = [json.loads(path.read_text()) for path in DASHBOARDS]
    targets = (target["expr"] for board in boards for panel in board["panels"] for target in panel["targets"])
    assert len(boards) == 2
    assert asked(iter(alerts().values())) <= declared()
    assert asked(targets) <= declared()


def test_every_metric_and_every_alert_is_explained() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    explained = {
        f"{a}{unit}{b}"
        for a, units, b in re.findall(r"(vnet_\w*)\{(packets,\S*?)\}(\w*)", page)
        for unit in units.split(",")
    }
    explained |= set(re.findall(r"vnet_[a-z_]+", page))
    assert declared() - explained == set()
    assert {*re.findall(r"^\| `(Vnet\w+)` \|", page, re.MULTILINE)} == alerts().keys()
