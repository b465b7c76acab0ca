"""What must survive a restart: SQLite behind one writer thread.

The public face of the room: `open_store`, the `Store` it yields, and the errors. The rooms that own the data (pairing,
and later channels and sessions) hand in jobs: plain functions of a `sqlite3.Connection`.
"""

from openclaw_gateway.store.errors import StoreCorrupt, StoreError, StoreTooNew, StoreUnavailable
from openclaw_gateway.store.writer import Store, open_store

__all__ = ["Store", "StoreCorrupt", "StoreError", "StoreTooNew", "StoreUnavailable", "open_store"]
