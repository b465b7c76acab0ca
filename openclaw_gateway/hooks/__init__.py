"""Webhooks in both directions, and the login of operators at an OpenID provider.

Nothing here is imported at a start unless the configuration asks for it (`messaging`, `app`).
"""
