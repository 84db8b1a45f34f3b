"""Pools on one machine."""
