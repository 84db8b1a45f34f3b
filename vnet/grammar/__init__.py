"""The grammar of inputs: nodes, types of values, declared objects. It knows no networks."""
