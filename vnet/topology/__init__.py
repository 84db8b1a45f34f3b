"""The topology document: YAML to values, every error with its place."""
