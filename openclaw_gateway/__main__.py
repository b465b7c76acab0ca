"""``python -m openclaw_gateway``: the same as the ``openclaw`` command."""

from openclaw_gateway.cli.main import main

if __name__ == "__main__":
    main()
