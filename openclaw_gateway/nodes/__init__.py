"""Nodes: machines that lend their abilities. What is known of them, and which are connected."""
