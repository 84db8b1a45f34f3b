"""Probes of a running pool: ofproto/trace on its hosts, and marked packets that no guest receives."""
