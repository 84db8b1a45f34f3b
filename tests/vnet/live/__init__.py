"""Questions to the switches of a pool that runs."""
