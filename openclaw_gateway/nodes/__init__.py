"""Nodes: machines that lend their abilities. Who is here, what each may lend, and how it is asked for it."""
