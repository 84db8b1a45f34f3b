"""Pools for tests of the lab, as model values."""

from __future__ import annotations

from vnet.lab import Driver, Lab
from vnet.objects import BondMode, Host, Network, NetworkType, Pool, PoolState, Uplink, Vif, Vm

MTU = 1600
HOSTS = ("xen1", "xen2", "xen3")
VXLAN_PORT, VNI = 100, 5001


def mac(index: int) -> str:
    return f"0a:00:00:00:00:{index:02x}"


def pool(family: int = 4, uplink: Uplink | None = None, hosts: int = 3) -> PoolState:
    """Hosts xen1.. with a VM vm1.. each, on a VXLAN network; one uplink `trunk0`."""
    names = HOSTS[:hosts]
    prefix, network_address = ("10.99.0.", "10.1.0.") if family == 4 else ("fd99::", "fd01::")
    plug = uplink or Uplink("trunk0", ("eth1",))
    vifs = [
        Vif(f"vif-{i}", "tenant", mac(i), vm=f"vm{i}", addresses=(f"{network_address}{i}",), host=name)
        for i, name in enumerate(names, 1)
    ]
    return PoolState(
        pool=Pool("lab", MTU),
        hosts={name: Host(name, f"{prefix}{i}", (plug,)) for i, name in enumerate(names, 1)},
        networks={"tenant": Network("tenant", NetworkType.VXLAN, 1, MTU - 50, key=VNI)},
        vms={f"vm{i}": Vm(f"vm{i}", name) for i, name in enumerate(names, 1)},
        vifs={vif.id: vif for vif in vifs},
    )


LACP = Uplink("trunk0", ("eth1", "eth2"), BondMode.LACP)


def bridges(lab: Lab) -> None:
    """What an agent would make, in its simplest form: br-int with a tunnel port, and an uplink bridge without VLANs."""
    for host in lab.spec.hosts:
        ovs = lab.ovs(host.name)
        uplink = host.uplinks[0]
        args = [
            *(
                "add-br",
                "br-int",
                "--",
                "set",
                "bridge",
                "br-int",
                f"datapath_type={ovs.datapath_type}",
                "fail_mode=secure",
            ),
            *(
                "--",
                "add-port",
                "br-int",
                "tun",
                "--",
                "set",
                "interface",
                "tun",
                "type=vxlan",
                "options:remote_ip=flow",
            ),
            *("options:key=flow", f"ofport_request={VXLAN_PORT}"),
            *("--", "add-br", "br-trunk0", "--", "set", "bridge", "br-trunk0", f"datapath_type={ovs.datapath_type}"),
        ]
        if uplink.mode is None:
            args += ["--", "add-port", "br-trunk0", uplink.members[0]]
        else:
            args += ["--", "add-bond", "br-trunk0", "bond", *uplink.members, "--", "set", "port", "bond"]
            args += ["lacp=active", "other_config:lacp-time=fast"]
        ovs.vsctl(*args)
        if lab.spec.driver is Driver.DUMMY:
            lab.driver.cable(host.name, uplink.members[0])  # type: ignore[union-attr]


def mesh(lab: Lab, *vms: str) -> None:
    """Flows that flood from each VM (all, if none is named) to every other host: enough to see that frames travel."""
    field = "tun_ipv6_dst" if ":" in (lab.spec.hosts[0].address or "") else "tun_dst"
    for guest in lab.spec.guests:
        if vms and guest.name not in vms:
            continue
        assert guest.host is not None
        ovs = lab.ovs(guest.host)
        port = ovs.vsctl("get", "interface", lab.spec.device(guest.vifs[0]), "ofport").strip()
        peers = [host.address for host in lab.spec.hosts if host.name != guest.host]
        out = ",".join(f"set_field:{peer}->{field},set_field:{VNI}->tun_id,output:{VXLAN_PORT}" for peer in peers)
        ovs.ofctl("add-flow", "br-int", f"in_port={port},actions={out}")
        ovs.ofctl("add-flow", "br-int", f"in_port={VXLAN_PORT},actions=output:{port}")
