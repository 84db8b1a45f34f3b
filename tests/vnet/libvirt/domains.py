"""Domains of libvirt as tests define them, in the XML that libvirt hands on."""

from __future__ import annotations

from collections.abc import Iterable


def domain_xml(name: str, uuid: str, *interfaces: str, extra: str = "") -> str:
    """A domain with these interfaces."""
    return f"""<domain type='qemu' id='1'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  {extra}
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {"".join(interfaces)}
  </devices>
</domain>
"""


def interface_xml(vif: str, mac: str, bridge: str = "br-int", profile: str = "", more: Iterable[str] = ()) -> str:
    """An interface on Open vSwitch."""
    named = f" profileid='{profile}'" if profile else ""
    return f"""<interface type='bridge'>
      <mac address='{mac}'/>
      <source bridge='{bridge}'/>
      <virtualport type='openvswitch'><parameters interfaceid='{vif}'{named}/></virtualport>
      <target dev='vnet0'/>
      <model type='virtio'/>{"".join(more)}
    </interface>"""
