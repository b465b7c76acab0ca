"""Reaching the gateway over a tailnet: `tailscale serve` and `funnel`, supervised, and who comes through them.

`protocol`, `plan` and `conditions` are pure; `localapi` and `cli` are two ways to the same daemon; `supervisor` keeps
the route as it is wanted, whatever happens to the daemon; `identity` asks whose machine a request comes from. `app`
loads this package only where ``gateway.tailscale.mode`` is not ``off``.
"""
