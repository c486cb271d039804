"""A WSGI application of OpenStack under waitress: `serve.py MODULE HOST PORT`."""

import importlib
import sys

import waitress

module, host, port = sys.argv[1:4]
sys.argv = [module]  # the applications read the command line
application = importlib.import_module(module).application
waitress.serve(
    application, host=host, port=int(port), threads=8, channel_timeout=120, max_request_body_size=1 << 34, ident="test"
)
