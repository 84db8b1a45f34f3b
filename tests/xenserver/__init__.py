"""A XenServer pool for tests: what xapi's scripts do on hosts of a lab, and a server that speaks XenAPI."""
