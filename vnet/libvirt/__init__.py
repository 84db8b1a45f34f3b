"""Hosts of libvirt and QEMU: what their hook tells the pool, their events, and their domains as a document."""
