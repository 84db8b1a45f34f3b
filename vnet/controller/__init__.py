"""The REST API, leader duties, events."""
