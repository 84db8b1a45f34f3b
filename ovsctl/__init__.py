"""ovsctl: control Open vSwitch over OVSDB, OpenFlow 1.5 and its control socket. Imports nothing of vnet."""
