"""All of cinder in one process: scheduler, volume service (a driver without disks) and API, as with nova:
`cinder_all.py HOST PORT`."""

import os
import sys

host, port = sys.argv[1:3]
sys.argv = ["cinder", "--config-file", f"{os.environ['OS_CINDER_CONFIG_DIR']}/cinder.conf"]  # it reads the command line
os.environ["OS_CINDER_DISABLE_EVENTLET_PATCHING"] = "true"

from cinder import monkey_patch  # noqa: E402

monkey_patch.patch("threading")

import os_brick  # noqa: E402
import waitress  # noqa: E402
from cinder import service  # noqa: E402
from cinder.wsgi.api import application  # noqa: E402 - reads the configuration
from oslo_config import cfg  # noqa: E402

BACKEND = "thin"
os_brick.setup(cfg.CONF)
cfg.CONF.register_opt(cfg.StrOpt("backend_host"), group=BACKEND)
service.Service.create(binary="cinder-scheduler").start()
service.Service.create(
    host=f"{cfg.CONF.host}@{BACKEND}", service_name=BACKEND, binary="cinder-volume", coordination=True
).start()
waitress.serve(application, host=host, port=int(port), threads=8, channel_timeout=120, ident="test")
