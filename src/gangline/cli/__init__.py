"""The command line: parse, call, print. Commands talk to a node over HTTP like any client."""
