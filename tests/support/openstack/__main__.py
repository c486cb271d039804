"""Fetch what the OpenStack for tests needs, and make its template."""

from __future__ import annotations

import sys

from tests.support.openstack import packages, template


def main() -> int:
    """Zero also where it cannot be had: the tests are skipped then."""
    try:
        needs = packages.ensure()
    except packages.UnavailableError as error:
        print(f"OpenStack: not here, its tests are skipped: {error}")
        return 0
    print(f"OpenStack: {template.ensure(needs)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
