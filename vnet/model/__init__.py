"""What a pool is made of, as frozen values. Imports nothing of vnet."""
