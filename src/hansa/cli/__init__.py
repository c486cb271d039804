"""The command line. Data goes to stdout, prose to stderr; commands parse, call the client, and print."""
