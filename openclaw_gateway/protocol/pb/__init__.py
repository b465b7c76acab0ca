"""The messages of the subprotocol ``openclaw.v4.proto``: what scripts/proto makes of proto/. Never edited by hand.

The .proto files lie beside the code (``openclaw/v4/``) so that an installed gateway brings them. Importing a module of
this package loads the Protocol Buffers runtime (7 MB, 50 ms): only for a client that asked for the dialect.
"""
