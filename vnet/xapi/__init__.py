"""XenServer and XCP-ng pools: networks published to xapi, and xapi's VMs and VIFs followed.

One rule: xapi is read; written is only what a person asks for by `vnet xapi publish` and `vnet xapi take-over`.
"""
