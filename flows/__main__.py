"""`python -m flows` is `dasnet`."""

from flows.cli.main import main

if __name__ == "__main__":
    main()
