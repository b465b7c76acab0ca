"""The port: listening, HTTP, WebSocket sessions, and what guards them before anybody is known."""
