"""Calls: the method table, how a call runs, and one module per family of methods.

A family is a function ``register(table, ...)`` that adds its methods; `app` calls them with what they need.
"""
