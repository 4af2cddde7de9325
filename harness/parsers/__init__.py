"""What the subcommands take on the command line, in groups; each imports what it does in its own body.

So `--help` stays fast.
"""
