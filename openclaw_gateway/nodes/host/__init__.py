"""The headless node: a program that lends this machine's abilities to a gateway, and never more than its own policy
allows.

    async with trio.open_nursery() as nursery:
        await run_node(setup, tell=print, stop=trio.Event())

Owns the node's side of the wire (spec wire.md section 7). Nothing here imports the server: a node reaches its gateway
through `openclaw_gateway.client` alone. Two gates stand before every command: the gateway passes on only what an
operator approved, and this machine's own `exec_policy` decides about each program and folder whatever the gateway says.
"""
