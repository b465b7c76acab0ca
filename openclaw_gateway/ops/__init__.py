"""Running the gateway: logging, state directory, instance lock, health, doctor. Nothing here knows the wire."""
