"""All of nova in one process: conductor, scheduler, compute (fake hypervisor) and API. Their messages stay inside it,
so there is no need of a message broker: `nova_all.py HOST PORT`."""

import sys

host, port = sys.argv[1:3]
sys.argv = ["nova"]  # nova's modules read the command line

from nova.wsgi import osapi_compute  # noqa: E402, I001 - the first import reads the configuration

import os_vif  # noqa: E402
import waitress  # noqa: E402
from nova import context, objects, service  # noqa: E402
from nova.compute import rpcapi  # noqa: E402
from nova.conf import CONF  # noqa: E402
from nova.objects import host_mapping  # noqa: E402
from nova.virt import fake  # noqa: E402
from oslo_service import opts  # noqa: E402

opts.register_service_opts(CONF)
fake.FakeDriver.get_console_output = lambda _self, _context, instance: (
    instance.metadata.get("console") or "FAKE CONSOLE OUTPUT\nANOTHER\nLAST LINE"
)  # what a test wants its guest to say
objects.register_all()
os_vif.initialize()
for binary, topic, other in (
    ("nova-conductor", "conductor", None),
    ("nova-scheduler", "scheduler", None),
    ("nova-compute", rpcapi.RPC_TOPIC, getattr(rpcapi, "RPC_TOPIC_ALT", None)),
):
    service.Service.create(binary=binary, topic=topic, topic_alt=other).start()
host_mapping.discover_hosts(context.get_admin_context())
waitress.serve(osapi_compute.application, host=host, port=int(port), threads=8, channel_timeout=120, ident="test")
