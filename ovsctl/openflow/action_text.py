"""Actions in `ovs-ofctl` syntax, both ways (ovs-actions(7)).

One rule: what is written here is what `ovs-ofctl dump-flows` writes, and what is read is what it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv6Address
from typing import Any

from ovsctl.openflow import actions as act
from ovsctl.openflow.actions import Action
from ovsctl.openflow.conntrack import ALGS, Ct, Nat
from ovsctl.openflow.errors import TextError
from ovsctl.openflow.fields import (
    FIELDS,
    ReservedPort,
    Subfield,
    field,
    format_port,
    format_value,
    parse_port,
    subfield,
)
from ovsctl.openflow.learning import Learn, LearnLoad, LearnMatch, LearnOutput, LearnSpec

_SPACE = ", \t\r\n"
_MAX_DEPTH = 16


def number(text: str, subject: str) -> int:
    """A decimal, 0x hexadecimal or 0 octal number; TextError for anything else."""
    try:
        return int(text, 8 if text[:1] == "0" and text.isdecimal() else 0)
    except ValueError:
        raise TextError(text, f"{subject} is not a number") from None


def pairs(text: str) -> Iterator[tuple[str, str, str]]:
    """(key, value, tail) of "key=value", "key:value", "key(value)tail" and "key", split at commas and spaces.

    Parentheses and brackets nest inside a value; `tail` is what "->..." follows a closing parenthesis.
    """
    at, end = 0, len(text)
    while True:
        while at < end and text[at] in _SPACE:
            at += 1
        if at == end:
            return
        start = at
        while at < end and text[at] not in ":=(" + _SPACE:
            at += 1
        key, value, tail = text[start:at], "", ""
        if at < end and text[at] in ":=":
            value, at = _value(text, at + 1)
        elif at < end and text[at] == "(":
            close = _closing(text, at)
            value = text[at + 1 : close]
            tail, at = _value(text, close + 1)
        yield key, value, tail


def _value(text: str, at: int) -> tuple[str, int]:
    start, depth = at, 0
    while at < len(text) and (depth or text[at] not in _SPACE):
        depth += (text[at] in "([") - (text[at] in ")]")
        at += 1
    return text[start:at], at


def _closing(text: str, at: int) -> int:
    depth = 0
    for n in range(at, len(text)):
        depth += (text[n] == "(") - (text[n] == ")")
        if not depth:
            return n
    raise TextError(text[at:], "a parenthesis is not closed")


# ---- writing ----


def format_actions(actions: tuple[Action, ...]) -> str:
    """The actions as `ovs-ofctl` writes them; "drop" for none."""
    return ",".join(format_action(action) for action in actions) or "drop"


def format_action(action: Action) -> str:
    """One action as `ovs-ofctl` writes it."""
    return _FORMATS[type(action)](action)


def _list(actions: tuple[Action, ...]) -> str:
    return ",".join(format_action(action) for action in actions)


def _format_output(a: act.Output) -> str:
    return f"output:{a.port}" if a.port < 0xFF00 else format_port(a.port)


def _format_controller(a: act.ToController) -> str:
    if a.plain:
        return f"CONTROLLER:{a.max_len}"
    parts = []
    if a.reason != "action":
        parts.append(f"reason={a.reason}")
    if a.max_len != 0xFFFF:
        parts.append(f"max_len={a.max_len}")
    if a.controller_id:
        parts.append(f"id={a.controller_id}")
    if a.userdata:
        parts.append(f"userdata={a.userdata.hex('.')}")
    if a.pause:
        parts.append("pause")
    if a.meter != act.NO_METER:
        parts.append(f"meter_id={a.meter}")
    return f"controller({','.join(parts)})"


def _format_set_field(a: act.SetField) -> str:
    return f"set_field:{format_value(a.field, a.value, a.mask)}->{a.field.name}"


def _format_resubmit(a: act.Resubmit) -> str:
    if a.table is None and a.in_port is not None and not a.ct:
        return f"resubmit:{format_port(a.in_port)}"
    port = "" if a.in_port is None else format_port(a.in_port)
    table = "" if a.table is None else a.table
    return f"resubmit({port},{table}{',ct' if a.ct else ''})"


def _format_dec_ttl(a: act.DecTtl) -> str:
    return f"dec_ttl({','.join(map(str, a.controllers))})" if a.controllers else "dec_ttl"


def _format_fin_timeout(a: act.FinTimeout) -> str:
    parts = [f"{name}_timeout={value}" for name, value in (("idle", a.idle), ("hard", a.hard)) if value]
    return f"fin_timeout({','.join(parts)})"


def _format_metadata(a: act.WriteMetadata) -> str:
    mask = "" if a.mask == FIELDS["metadata"].full else f"/{_hex(a.mask)}"
    return f"write_metadata:{_hex(a.value)}{mask}"


def _hex(value: int) -> str:
    return f"{value:#x}" if value else "0"


def _format_nat(a: Nat) -> str:
    if a.direction is None:
        return "nat"
    parts: list[str] = [a.direction]
    if a.address is not None:
        parts[0] += f"={_format_range(a)}"
    parts += [name for name in ("persistent", "hash", "random") if getattr(a, name)]
    return f"nat({','.join(parts)})"


def _format_range(a: Nat) -> str:
    ends = [
        f"[{end}]" if a.port and isinstance(end, IPv6Address) else str(end) for end in (a.address, a.address_max) if end
    ]
    ports = [str(port) for port in (a.port, a.port_max) if port]
    return "-".join(ends) + (":" + "-".join(ports) if ports else "")


def _format_ct(a: Ct) -> str:
    parts = [name for name in ("commit", "force") if getattr(a, name)]
    if a.table is not None:
        parts.append(f"table={a.table}")
    if a.zone != 0:
        parts.append(f"zone={a.zone}")
    if a.nat is not None:
        parts.append(_format_nat(a.nat))
    if a.exec:
        parts.append(f"exec({_list(a.exec)})")
    if a.alg:
        parts.append(f"alg={next((name for name, port in ALGS.items() if port == a.alg), a.alg)}")
    return f"ct({','.join(parts)})"


def _format_spec(spec: LearnSpec) -> str:
    if isinstance(spec, LearnOutput):
        return f"output:{spec.source}"
    source = str(spec.source) if isinstance(spec.source, Subfield) else _hex(spec.source)
    if isinstance(spec, LearnLoad):
        return f"load:{source}->{spec.target}"
    if spec.target.whole and not isinstance(spec.source, Subfield):
        return f"{spec.target.field.name}={format_value(spec.target.field, spec.source)}"
    return str(spec.target) if spec.source == spec.target else f"{spec.target}={source}"


def _format_sample(a: act.Sample) -> str:
    words = [
        f"probability={a.probability}",
        f"collector_set_id={a.collector_set}",
        f"obs_domain_id={a.domain}",
        f"obs_point_id={a.point}",
    ]
    words += [f"sampling_port={format_port(a.port)}"] if a.port is not None else []
    words += [a.direction.name.lower()] if a.direction else []
    return f"sample({','.join(words)})"


def _format_learn(a: Learn) -> str:
    parts = [f"table={a.table}"]
    for name in ("idle_timeout", "hard_timeout", "fin_idle_timeout", "fin_hard_timeout"):
        if getattr(a, name):
            parts.append(f"{name}={getattr(a, name)}")
    if a.priority != 0x8000:
        parts.append(f"priority={a.priority}")
    parts += [name for name in ("send_flow_rem", "delete_learned") if getattr(a, name)]
    if a.cookie:
        parts.append(f"cookie={a.cookie:#x}")
    if a.limit:
        parts.append(f"limit={a.limit}")
    if a.result is not None:
        parts.append(f"result_dst={a.result}")
    return f"learn({','.join(parts + [_format_spec(spec) for spec in a.specs])})"


_FORMATS: dict[type[Action], Callable[..., str]] = {
    act.Output: _format_output,
    act.OutputReg: lambda a: f"output:{a.source}",
    act.OutputTrunc: lambda a: f"output(port={format_port(a.port)},max_len={a.max_len})",
    act.ToController: _format_controller,
    act.SetField: _format_set_field,
    act.Move: lambda a: f"move:{a.source}->{a.target}",
    act.Push: lambda a: f"push:{a.source}",
    act.Pop: lambda a: f"pop:{a.target}",
    act.Resubmit: _format_resubmit,
    act.PushVlan: lambda a: f"push_vlan:{a.ethertype:#06x}",
    act.PopVlan: lambda a: "pop_vlan",
    act.PushMpls: lambda a: f"push_mpls:{a.ethertype:#06x}",
    act.PopMpls: lambda a: f"pop_mpls:{a.ethertype:#06x}",
    act.DecTtl: _format_dec_ttl,
    act.SetQueue: lambda a: f"set_queue:{a.queue}",
    act.PopQueue: lambda a: "pop_queue",
    act.GroupAction: lambda a: f"group:{a.group}",
    act.MeterAction: lambda a: f"meter:{a.meter}",
    act.Conjunction: lambda a: f"conjunction({a.id},{a.k}/{a.n})",
    act.Note: lambda a: f"note:{a.data.hex('.')}",
    act.CheckPktLarger: lambda a: f"check_pkt_larger({a.length})->{a.target}",
    act.Clone: lambda a: f"clone({_list(a.actions)})",
    act.Sample: _format_sample,
    act.FinTimeout: _format_fin_timeout,
    act.CtClear: lambda a: "ct_clear",
    act.Exit: lambda a: "exit",
    act.ClearActions: lambda a: "clear_actions",
    act.WriteActions: lambda a: f"write_actions({_list(a.actions)})",
    act.WriteMetadata: _format_metadata,
    act.GotoTable: lambda a: f"goto_table:{a.table}",
    Nat: _format_nat,
    Ct: _format_ct,
    Learn: _format_learn,
}


# ---- reading ----


def parse_actions(text: str, nw_proto: int | None = None, depth: int = 0) -> tuple[Action, ...]:
    """The actions of `ovs-ofctl` text. `nw_proto` is what the flow matches, for mod_tp_src and mod_tp_dst.

    Raises TextError for the syntax, and the other InvalidValueError for values that cannot be.
    """
    if depth > _MAX_DEPTH:
        raise TextError(text, f"actions are nested more than {_MAX_DEPTH} deep")
    found: list[Action] = []
    dropped = False
    for key, value, tail in pairs(text):
        if tail and key != "check_pkt_larger":
            raise TextError(tail, f"more after the end of {key}")
        if key == "drop" and not value:
            dropped = True
        elif key in ("clone", "write_actions"):
            inner = parse_actions(value, nw_proto, depth + 1)
            found.append(act.Clone(*inner) if key == "clone" else act.WriteActions(*inner))
        elif key == "ct":
            found.append(_parse_ct(value, depth))
        elif key == "enqueue":
            port, _, queue = value.replace("q", "").replace(",", ":").partition(":")
            found += [act.SetQueue(number(queue, "the queue")), act.Output(parse_port(port)), act.PopQueue()]
        elif key in ("mod_tp_src", "mod_tp_dst"):
            found.append(act.SetField(_transport(key, nw_proto), value))
        else:
            found.append(_parse_action(key, value, tail))
    if dropped and found:
        raise TextError(text, "drop must stand alone")
    return tuple(found)


_TRANSPORTS = {6: "tcp", 17: "udp", 132: "sctp"}


def _transport(key: str, nw_proto: int | None) -> str:
    protocol = _TRANSPORTS.get(nw_proto or 0)
    if protocol is None:
        raise TextError(key, "the flow must match tcp, udp or sctp")
    return f"{protocol}_{key[-3:]}"


def _parse_action(key: str, value: str, tail: str) -> Action:
    parser = _PARSERS.get(key.lower())
    if parser is not None:
        return parser(value + tail)
    if value:
        raise TextError(key, "not an action that ovsctl supports")
    if key.upper() in ReservedPort.__members__ or key.isdecimal():
        return _parse_port_action(key, "")
    raise TextError(key, "not an action that ovsctl supports")


def _parse_port_action(port: str, max_len: str) -> Action:
    where = parse_port(port)
    if where == ReservedPort.CONTROLLER:
        return act.ToController(number(max_len, "max_len") if max_len else 0xFFFF)
    return act.Output(where)


def _parse_output(value: str) -> Action:
    if "=" in value:
        arguments = {key: inner for key, inner, _ in pairs(value)}
        if set(arguments) != {"port", "max_len"}:
            raise TextError(value, "output takes port and max_len")
        return act.OutputTrunc(parse_port(arguments["port"]), number(arguments["max_len"], "max_len"))
    if "[" in value or value in FIELDS:
        return act.OutputReg(value)
    port, _, max_len = value.partition(":")
    return _parse_port_action(port, max_len)


def _parse_controller(value: str) -> Action:
    if value.isdecimal() or not value:
        return act.ToController(int(value or 0xFFFF))
    max_len, userdata, reason, controller_id, pause, meter = 0xFFFF, b"", "action", 0, False, act.NO_METER
    for key, inner, _ in pairs(value):
        if key == "max_len":
            max_len = number(inner, key)
        elif key == "userdata":
            userdata = _bytes(inner)
        elif key == "reason":
            reason = inner
        elif key == "id":
            controller_id = number(inner, key)
        elif key == "pause":
            pause = True
        elif key == "meter_id":
            meter = number(inner, key)
        else:
            raise TextError(value, f"controller has no {key}")
    return act.ToController(max_len, userdata, reason, controller_id, pause, meter)


def _bytes(text: str) -> bytes:
    try:
        return bytes(int(octet, 16) for octet in text.split(".")) if "." in text else bytes.fromhex(text)
    except ValueError:
        raise TextError(text, "not bytes in hexadecimal") from None


def _arrow(value: str) -> tuple[str, str]:
    source, arrow, target = value.partition("->")
    if not arrow or not source:
        raise TextError(value, "it needs SOURCE->TARGET")
    return source.strip(), target.strip()


def _parse_set_field(value: str) -> Action:
    text, target = _arrow(value)
    return act.SetField(field(target), text)


def _parse_load_action(value: str) -> Action:
    text, target = _arrow(value)
    return act.SetField(subfield(target), number(text, "the value"))


def _parse_move(value: str) -> Action:
    return act.Move(*_arrow(value))


def _parse_resubmit(value: str) -> Action:
    port, _, rest = value.partition(",")
    table, _, ct = rest.partition(",")
    if ct.strip() not in ("", "ct"):
        raise TextError(value, "resubmit takes a port, a table and ct")
    in_port = parse_port(port.strip()) if port.strip() else None
    return act.Resubmit(
        None if table.strip() in ("", "255") else number(table.strip(), "the table"),
        None if in_port == ReservedPort.IN_PORT else in_port,
        bool(ct.strip()),
    )


def _parse_dec_ttl(value: str) -> Action:
    return act.DecTtl(tuple(number(one.strip(), "the controller id") for one in value.split(",") if one.strip()))


def _parse_conjunction(value: str) -> Action:
    conj_id, _, rest = value.partition(",")
    k, slash, n = rest.partition("/")
    if not slash:
        raise TextError(value, "conjunction takes ID, K/N")
    return act.Conjunction(number(conj_id.strip(), "the id"), number(k.strip(), "K"), number(n.strip(), "N"))


def _parse_check_pkt_larger(value: str) -> Action:
    length, target = _arrow(value)
    return act.CheckPktLarger(number(length, "the length"), target)


_SAMPLE_NUMBERS = {
    "probability": "probability",
    "collector_set_id": "collector_set",
    "obs_domain_id": "domain",
    "obs_point_id": "point",
}


def _parse_sample(value: str) -> Action:
    found: dict[str, Any] = {}
    for key, inner, _ in pairs(value):
        if key in _SAMPLE_NUMBERS:
            found[_SAMPLE_NUMBERS[key]] = number(inner, key)
        elif key == "sampling_port":
            found["port"] = parse_port(inner)
        elif key in ("ingress", "egress") and not inner:
            found["direction"] = act.SampleDirection[key.upper()]
        else:
            raise TextError(value, f"sample has no {key}")
    if "probability" not in found:
        raise TextError(value, "sample needs a probability")
    return act.Sample(**found)


def _parse_fin_timeout(value: str) -> Action:
    arguments = {key: number(inner, key) for key, inner, _ in pairs(value)}
    if not set(arguments) <= {"idle_timeout", "hard_timeout"}:
        raise TextError(value, "fin_timeout takes idle_timeout and hard_timeout")
    return act.FinTimeout(arguments.get("idle_timeout", 0), arguments.get("hard_timeout", 0))


def _parse_metadata(value: str) -> Action:
    text, slash, mask = value.partition("/")
    return act.WriteMetadata(number(text, "metadata"), number(mask, "its mask") if slash else FIELDS["metadata"].full)


def _parse_nat(value: str) -> Nat:
    arguments = [(key, inner) for key, inner, _ in pairs(value)]
    flags = {key: True for key, _ in arguments if key in ("persistent", "hash", "random")}
    directions = [(key, inner) for key, inner in arguments if key in ("src", "dst")]
    if len(flags) + len(directions) != len(arguments) or len(directions) > 1:
        raise TextError(value, "nat takes src or dst with a range, persistent, hash and random")
    if not directions:
        return Nat(**flags)  # type: ignore[arg-type]
    direction, span = directions[0]
    addresses, ports = _split_range(span)
    first, _, last = addresses.partition("-")
    low, _, high = ports.partition("-")
    return Nat(
        "src" if direction == "src" else "dst",
        first.strip("[]") or None,
        last.strip("[]") or None,
        number(low, "the port") if low else None,
        number(high, "the port") if high else None,
        **flags,
    )


def _split_range(span: str) -> tuple[str, str]:
    """(addresses, ports): ":" sets the ports apart, after brackets where the addresses are IPv6."""
    if "[" in span:
        addresses, _, ports = span.rpartition("]")
        return addresses + "]", ports.removeprefix(":")
    if span.count(":") > 1:
        return span, ""
    addresses, _, ports = span.partition(":")
    return addresses, ports


def _parse_ct(value: str, depth: int) -> Action:
    flags, table, zone, alg = set(), None, "0", "0"
    nat: Nat | None = None
    inner: tuple[Action, ...] = ()
    for key, argument, _ in pairs(value):
        if key in ("commit", "force"):
            flags.add(key)
        elif key == "table":
            table = number(argument, key)
        elif key == "zone":
            zone = argument
        elif key == "alg":
            alg = argument
        elif key == "nat":
            nat = _parse_nat(argument)
        elif key == "exec":
            inner = parse_actions(argument, None, depth + 1)
        else:
            raise TextError(value, f"ct has no {key}")
    return Ct(
        "commit" in flags,
        "force" in flags,
        table,
        number(zone, "the zone") if zone[:1].isdecimal() else subfield(zone),
        ALGS[alg] if alg in ALGS else number(alg, "alg"),
        nat,
        inner,
    )


_LEARN_NUMBERS = (
    "table", "priority", "cookie", "idle_timeout", "hard_timeout", "fin_idle_timeout", "fin_hard_timeout", "limit",
)  # fmt: skip


def _parse_learn(value: str) -> Action:
    numbers: dict[str, int] = {}
    flags: dict[str, bool] = {}
    result: Subfield | None = None
    specs: list[LearnSpec] = []
    for key, inner, _ in pairs(value):
        if key in _LEARN_NUMBERS:
            numbers[key] = number(inner, key)
        elif key in ("send_flow_rem", "delete_learned"):
            flags[key] = True
        elif key == "result_dst":
            result = subfield(inner)
        elif key == "output":
            specs.append(LearnOutput(inner))
        elif key == "load":
            specs.append(_parse_load(inner))
        else:
            target = subfield(key)
            source = (inner if target.whole else _number_or_name(inner)) if inner else None
            specs.append(LearnMatch(target, source))
    return Learn(tuple(specs), result=result, **numbers, **flags)  # type: ignore[arg-type]


def _number_or_name(text: str) -> int | str:
    return number(text, "the value") if text[:1].isdecimal() else text


def _parse_load(value: str) -> LearnLoad:
    source, target = _arrow(value)
    return LearnLoad(_number_or_name(source), target)


def _named(name: str) -> Callable[[str], Action]:
    return lambda value: act.SetField(field(name), value)


_PARSERS: dict[str, Callable[[str], Action]] = {
    "output": _parse_output,
    "controller": _parse_controller,
    "set_field": _parse_set_field,
    "load": _parse_load_action,
    "move": _parse_move,
    "push": act.Push,
    "pop": act.Pop,
    "resubmit": _parse_resubmit,
    "push_vlan": lambda value: act.PushVlan(number(value, "the Ethernet type")),
    "pop_vlan": lambda value: act.PopVlan(),
    "push_mpls": lambda value: act.PushMpls(number(value, "the Ethernet type")),
    "pop_mpls": lambda value: act.PopMpls(number(value, "the Ethernet type")),
    "strip_vlan": lambda value: act.PopVlan(),
    "dec_ttl": _parse_dec_ttl,
    "set_queue": lambda value: act.SetQueue(number(value, "the queue")),
    "pop_queue": lambda value: act.PopQueue(),
    "group": lambda value: act.GroupAction(number(value, "the group")),
    "meter": lambda value: act.MeterAction(number(value, "the meter")),
    "conjunction": _parse_conjunction,
    "note": lambda value: act.Note(_bytes(value)),
    "check_pkt_larger": _parse_check_pkt_larger,
    "sample": _parse_sample,
    "fin_timeout": _parse_fin_timeout,
    "ct_clear": lambda value: act.CtClear(),
    "exit": lambda value: act.Exit(),
    "clear_actions": lambda value: act.ClearActions(),
    "write_metadata": _parse_metadata,
    "goto_table": lambda value: act.GotoTable(number(value, "the table")),
    "learn": _parse_learn,
    "set_tunnel": _named("tun_id"),
    "set_tunnel64": _named("tun_id"),
    "mod_dl_src": _named("eth_src"),
    "mod_dl_dst": _named("eth_dst"),
    "mod_nw_src": _named("ip_src"),
    "mod_nw_dst": _named("ip_dst"),
    "mod_nw_ttl": _named("nw_ttl"),
    "mod_nw_ecn": _named("nw_ecn"),
    "mod_nw_tos": lambda value: act.SetField("ip_dscp", number(value, "the TOS") >> 2),
}
