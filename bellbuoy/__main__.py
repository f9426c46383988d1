"""`python -m bellbuoy`."""

from bellbuoy.cli.main import main

if __name__ == "__main__":
    main()
