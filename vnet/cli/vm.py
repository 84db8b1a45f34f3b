"""VMs on the command line: VIFs that move as one."""

from __future__ import annotations

from vnet.cli.migration_commands import add_moves
from vnet.cli.nouns import noun_group

vm = noun_group("vm")
add_moves(vm, "vms", "a VM")
