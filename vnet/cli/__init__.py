"""The vnet command."""
