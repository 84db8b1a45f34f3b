"""Packets through compiled pipelines, across hosts, in memory."""
