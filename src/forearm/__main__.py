"""`python -m forearm` is the command line."""

from forearm.cli.app import main

main()
