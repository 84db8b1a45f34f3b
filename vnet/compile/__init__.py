"""Pool rows to what one host's Open vSwitch should hold. Pure."""
