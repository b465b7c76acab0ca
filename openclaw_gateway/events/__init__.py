"""Events and presence: what happens here, told to whoever may hear it."""
