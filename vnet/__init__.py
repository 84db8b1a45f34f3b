"""vnet: a software-defined virtual network for pools of virtualization hosts."""
