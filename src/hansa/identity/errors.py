"""Errors of identity."""

from hansa.kernel.errors import Exit, register

NO_TOKEN = register("identity.no_token", 401, Exit.SIGN_IN, "This needs a token.")
BAD_TOKEN = register("identity.bad_token", 401, Exit.SIGN_IN, "This token is not valid, or not any more.")
FORBIDDEN = register("identity.forbidden", 403, Exit.REFUSED, "This is not allowed to you.")
NAME_TAKEN = register("identity.name_taken", 409, Exit.REFUSED, "There is a user of this name already.")
SUSPENDED = register("identity.suspended", 403, Exit.REFUSED, "This account is suspended.")
NO_VO = register("identity.no_vo", 422, Exit.USAGE, "You are not a member of this virtual organisation.")
