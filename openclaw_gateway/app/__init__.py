"""The composition root: the only package that knows all the others.

One concept a module. `opening` nests what outlives connections around what does not; `services` opens what the store
holds; `parts` puts a gateway together; `life` runs its connections to the end and `watchers` what runs beside them;
`reloading` carries another configuration to every part, `ondemand` loads what a configuration asks for; `methods` says
what can be called and `views` what is told of the whole; `news` is what connections are told unasked. `gateway` is the
face that an embedding program sees. None of them knows how any part works.
"""

from __future__ import annotations

from openclaw_gateway.app.gateway import Gateway
from openclaw_gateway.app.opening import open_gateway, serve_gateway

__all__ = ["Gateway", "open_gateway", "serve_gateway"]
