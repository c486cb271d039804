"""Errors of machines."""

from hansa.kernel.errors import Exit, register

NOT_FOUND = register("machines.not_found", 404, Exit.NOT_FOUND, "There is no such machine of yours.")
NAME_TAKEN = register("machines.name_taken", 409, Exit.REFUSED, "You have a machine with this name already.")
BAD_SPEC = register("machines.bad_spec", 422, Exit.USAGE, "No machine can be like this.")
NO_SITE = register("machines.no_site", 409, Exit.REFUSED, "There is no site where such a machine can run.")
NOT_NOW = register("machines.not_now", 409, Exit.REFUSED, "The machine cannot do this in the state that it is in.")
UNABLE = register("machines.unable", 409, Exit.REFUSED, "The site of the machine cannot do this.")
SITE_AWAY = register("machines.site_away", 503, Exit.AWAY, "The site of the machine does not answer.")
NO_VOLUME = register("machines.no_volume", 404, Exit.NOT_FOUND, "There is no such volume of yours.")
VOLUME_TAKEN = register("machines.volume_taken", 409, Exit.REFUSED, "You have a volume with this name already.")
NO_SNAPSHOT = register("machines.no_snapshot", 404, Exit.NOT_FOUND, "There is no such snapshot of yours.")
