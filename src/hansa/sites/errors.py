"""Errors of sites."""

from hansa.kernel.errors import Exit, register

NOT_FOUND = register("sites.not_found", 404, Exit.NOT_FOUND, "There is no such site, or it does not serve you.")
NO_ENDPOINT = register("sites.no_endpoint", 404, Exit.NOT_FOUND, "The site has no such endpoint.")
NO_DOWNTIME = register("sites.no_downtime", 404, Exit.NOT_FOUND, "The site has no such downtime.")
TAKEN = register("sites.taken", 409, Exit.REFUSED, "There is a site of this name already.")
KIND = register("sites.kind", 422, Exit.USAGE, "There is no such kind of endpoint here.")
SETTINGS = register("sites.settings", 422, Exit.USAGE, "The settings of an endpoint are not valid.")
URL = register("sites.url", 422, Exit.USAGE, "Hansa must not, or cannot, use this address.")
FORBIDDEN = register("sites.forbidden", 403, Exit.REFUSED, "Only administrators of the site may do this.")
IN_USE = register("sites.in_use", 409, Exit.REFUSED, "Something still runs at the site.")
LOGIN = register("sites.login", 409, Exit.SIGN_IN, "The host wants a person to sign in first.")
SSH = register("sites.ssh", 502, Exit.AWAY, "The host cannot be used by SSH.")
NO_USER = register("sites.no_user", 404, Exit.NOT_FOUND, "There is no such user here.")
BAD_DOWNTIME = register("sites.bad_downtime", 422, Exit.USAGE, "Such a downtime cannot be.")
NO_GRANT = register("capacity.none", 409, Exit.REFUSED, "The organisation has no capacity grant in force there.")
USED_UP = register("capacity.used_up", 409, Exit.REFUSED, "What is left of the capacity grant does not suffice.")
NO_SUCH_GRANT = register("capacity.not_found", 404, Exit.NOT_FOUND, "There is no such capacity grant for you.")
GRANT_FORBIDDEN = register("capacity.forbidden", 403, Exit.REFUSED, "Somebody else decides this about the grant.")
BAD_TERMS = register("capacity.bad_terms", 422, Exit.USAGE, "These terms cannot be.")
