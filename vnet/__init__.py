"""vnet: a software-defined virtual network for pools of virtualization hosts."""

VERSION = "0.1.0"  # read here by daemons: importlib.metadata takes longer to load than the rest of an agent's libraries
