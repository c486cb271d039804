"""Errors of VM images."""

from hansa.kernel.errors import Exit, register

NOT_FOUND = register("images.not_found", 404, Exit.NOT_FOUND, "There is no such VM image, or it is not for you.")
TAKEN = register("images.taken", 409, Exit.REFUSED, "There is a VM image with this name already.")
FORBIDDEN = register("images.forbidden", 403, Exit.REFUSED, "You may not change this VM image.")
NOT_ENDORSED = register("images.not_endorsed", 403, Exit.REFUSED, "The virtual organisation has not endorsed it.")
NOT_READY = register("images.not_ready", 409, Exit.REFUSED, "The VM image cannot be used now.")
BAD_CONTENT = register("images.bad_content", 422, Exit.REFUSED, "The content is not an image that may be used.")
BAD_LIST = register("images.bad_list", 422, Exit.REFUSED, "The image list cannot be trusted or read.")
BUILD_FAILED = register("images.build_failed", 422, Exit.FAILED, "The VM image could not be made.")
NO_TOOL = register("images.no_tool", 503, Exit.AWAY, "A program that this needs is not installed on the server.")
BAD_REGISTRY = register("images.bad_registry", 422, Exit.USAGE, "What was named is no container registry.")
REGISTRY = register("images.registry_refused", 403, Exit.REFUSED, "The VO's jobs may not use this container registry.")
