"""The grammar of inputs: nodes, kinds of values, declared objects. It knows no networks."""
