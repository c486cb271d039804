"""Errors of starting and stopping a server."""

from hansa.kernel.errors import Exit, register

NO_START = register("server.no_start", 500, Exit.AWAY, "The server could not be started.")
RUNS = register("server.runs", 409, Exit.REFUSED, "A server of this home runs already.")
PORT = register("server.port_taken", 500, Exit.AWAY, "Another program listens on the server's port.")
NO_HOME = register("server.no_home", 500, Exit.REFUSED, "HANSA_HOME cannot be used.")
BACKUP = register("server.backup", 500, Exit.REFUSED, "The backup cannot be made or restored.")
ROOT = register("server.root", 500, Exit.REFUSED, "A shared server does not run as root.")
