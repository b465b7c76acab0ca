"""Message channels: one module for each service, one hub that keeps them running and apart from one another."""
