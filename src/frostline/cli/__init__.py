"""The command ``frostline``; one file per subcommand."""
