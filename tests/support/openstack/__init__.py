"""A real OpenStack for tests: keystone, glance, placement, neutron and nova from PyPI, MariaDB and Apache from Debian.

`python -m tests.support.openstack` fetches what is missing and makes the template; the fixtures do the same when it was
not run. Where a package cannot be had, the tests are skipped with the reason. Nova's fake hypervisor "runs" the
machines: everything but the guest itself is real.
"""
