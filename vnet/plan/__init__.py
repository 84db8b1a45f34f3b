"""Differences, their order and what they disrupt. Pure."""
