"""One per host: observe, compile, apply, verify, report."""
