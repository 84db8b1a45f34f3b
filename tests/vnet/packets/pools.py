"""Pools that packet tests run on, as values."""

from __future__ import annotations

from vnet.objects import Host, LockingMode, Network, NetworkType, Pool, PoolState, Trunk, Uplink, Vif, Vm

HOSTS = {
    name: Host(name, f"10.99.0.{number}", (Uplink("trunk0", (nic,)),))
    for number, (name, nic) in enumerate((("xen1", "eth1"), ("xen2", "eth7"), ("xen3", "eth1")), 1)
}
NETWORKS = {
    network.name: network
    for network in (
        Network("vlan", NetworkType.VLAN, 1, 1500, key=100, tag=120, uplink="trunk0"),
        Network("native", NetworkType.VLAN, 2, 1500, key=101, tag=0, uplink="trunk0"),
        Network("vx", NetworkType.VXLAN, 3, 1450, key=5001),
        Network("vy", NetworkType.VXLAN, 4, 1450, key=5002),
        Network("gre", NetworkType.GRE, 5, 1458, key=77),
        Network("gnv", NetworkType.GENEVE, 6, 1450, key=5001),
        Network("lab", NetworkType.INTERNAL, 7, 1500),
        Network("two", NetworkType.VXLAN, 8, 1450, key=5003, hosts=frozenset({"xen1", "xen2"})),
    )
}


def vm_of(network: str, host: str, number: int) -> str:
    return f"{network}-{host[-1]}{number}"


def every_type(per_host: int = 3) -> PoolState:
    """Three hosts, each with `per_host` VIFs on every network it may have; one unlocked VIF and two trunks besides."""
    vms: dict[str, Vm] = {}
    vifs: dict[str, Vif] = {}

    def add(vm: str, host: str, network: str, **more: object) -> None:
        number = len(vifs) + 1
        vms[vm] = Vm(vm, host)
        vif = Vif(
            f"{vm}/0", network, f"0a:00:00:00:{number >> 8:02x}:{number & 255:02x}", vm=vm, host=host,
            addresses=(f"10.{number}.0.1",), **more,  # type: ignore[arg-type]
        )  # fmt: skip
        vifs[vif.id] = vif

    for network in NETWORKS.values():
        for host in HOSTS:
            if network.on(host):
                for number in range(per_host):
                    add(vm_of(network.name, host, number), host, network.name)
    add("free", "xen2", "vy", locking_mode=LockingMode.UNLOCKED)
    add("some", "xen1", "native", trunk=Trunk((10, 120)))
    add("all", "xen3", "native", trunk=Trunk())
    return PoolState(Pool("packets", underlay_mtu=1600), HOSTS, NETWORKS, {}, vms, vifs)
