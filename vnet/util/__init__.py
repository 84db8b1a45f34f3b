"""Helpers that know nothing of networks: suggestions for typos, the garbage collector, logs, systemd."""
