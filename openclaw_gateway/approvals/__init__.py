"""The page on which a person decides about a device that asks to be let in. Loaded when it is first opened."""
