"""What all tests share."""

pytest_plugins = ["tests.support.leftovers", "tests.support.postgres", "tests.support.openstack.fixtures"]
