"""What the subcommands do once their options are read: one module per subcommand that needs more than one call."""
