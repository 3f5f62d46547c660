"""`python -m glideslope` is the same command as `glideslope`."""

from glideslope.cli import main

if __name__ == "__main__":
    main()
