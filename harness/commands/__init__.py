"""What the subcommands do after their options are parsed: one module per subcommand that needs more than one call."""
