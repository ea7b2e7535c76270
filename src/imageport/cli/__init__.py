"""The command line; each subcommand calls the library and prints."""
