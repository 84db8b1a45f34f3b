"""OVSDB (RFC 7047 and ovsdb-server(7)): values, operations, a replica, an asyncio client."""
