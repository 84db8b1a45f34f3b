"""WireGuard on a host: its keys, its devices, and the way that leads only there. A service of its own, with the rights that an agent does without."""
