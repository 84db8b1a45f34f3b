"""The pool database: the Vnet OVSDB schema and typed access to it."""
