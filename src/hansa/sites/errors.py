"""Errors of sites."""

from hansa.kernel.errors import Exit, register

NOT_FOUND = register("sites.not_found", 404, Exit.NOT_FOUND, "There is no such site, or it does not serve you.")
