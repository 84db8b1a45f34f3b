"""Reachability over all VIFs of a pool: equivalence classes, differences between two pools, expectations of a document."""
