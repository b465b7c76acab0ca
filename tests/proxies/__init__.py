"""Real reverse proxies in front of a real gateway, run with the very text of the how-to pages."""
