"""Errors of identity."""

from hansa.kernel.errors import Exit, register

NO_TOKEN = register("identity.no_token", 401, Exit.SIGN_IN, "This needs a token.")
BAD_TOKEN = register("identity.bad_token", 401, Exit.SIGN_IN, "This token is not valid, or not any more.")
NOT_HOLDER = register("identity.not_holder", 403, Exit.REFUSED, "This pilot's token is bound to another key.")
FORBIDDEN = register("identity.forbidden", 403, Exit.REFUSED, "This is not allowed to you.")
NAME_TAKEN = register("identity.name_taken", 409, Exit.REFUSED, "There is a user of this name already.")
SUSPENDED = register("identity.suspended", 403, Exit.REFUSED, "This account is suspended.")
NO_USER = register("identity.no_user", 404, Exit.NOT_FOUND, "There is no such user.")
NO_VO = register("identity.no_vo", 422, Exit.USAGE, "You are not a member of this virtual organisation.")
VO_AMBIGUOUS = register("identity.vo_ambiguous", 422, Exit.USAGE, "You are in several virtual organisations.")
VO_SUSPENDED = register("identity.vo_suspended", 403, Exit.REFUSED, "No new work starts for this organisation.")
VO_TAKEN = register("identity.vo_taken", 409, Exit.REFUSED, "There is a virtual organisation of this name already.")
NO_SUCH_VO = register("identity.no_such_vo", 404, Exit.NOT_FOUND, "There is no such virtual organisation.")
NO_GROUP = register("identity.no_group", 404, Exit.NOT_FOUND, "The virtual organisation has no such group.")
LAST_MANAGER = register("identity.last_manager", 409, Exit.REFUSED, "An organisation keeps at least one manager.")
BAD_INVITATION = register(
    "identity.bad_invitation", 410, Exit.REFUSED, "This invitation is not valid: used, expired or withdrawn."
)
BAD_PASSWORD = register("identity.bad_password", 422, Exit.USAGE, "This password cannot be used.")
CLIENT_TAKEN = register("identity.client_taken", 409, Exit.REFUSED, "There is a client of this id already.")
BAD_CLIENT = register("identity.bad_client", 422, Exit.USAGE, "This client cannot be added as it is described.")
NO_CLIENT = register("identity.no_client", 404, Exit.NOT_FOUND, "There is no such client.")
NO_ISSUER = register("identity.no_issuer", 404, Exit.NOT_FOUND, "There is no such issuer to sign in at.")
UPSTREAM_AWAY = register("identity.upstream_away", 503, Exit.AWAY, "The issuer of the sign-in cannot be reached.")
UPSTREAM_REFUSED = register("identity.upstream_refused", 403, Exit.SIGN_IN, "The issuer did not sign you in.")
BAD_LOGIN = register(
    "identity.bad_login", 400, Exit.SIGN_IN, "This sign-in was not begun in this browser, or is too old."
)
NOT_ASSURED = register("identity.not_assured", 403, Exit.REFUSED, "The assurance of this identity is too low.")
IDENTITY_TAKEN = register("identity.identity_taken", 409, Exit.REFUSED, "This identity belongs to another account.")
NO_IDENTITY = register("identity.no_identity", 404, Exit.NOT_FOUND, "This identity is not linked to you.")
LAST_IDENTITY = register("identity.last_identity", 409, Exit.REFUSED, "An account keeps one way to sign in.")
VO_RULED = register("identity.vo_ruled", 409, Exit.REFUSED, "An issuer rules who is in this organisation.")
GRANT_EXPIRED = register(
    "identity.grant_expired", 403, Exit.SIGN_IN, "Hansa may not act for you any more: sign in again."
)
NO_GRANT = register("identity.no_grant", 404, Exit.NOT_FOUND, "There is no such grant of authority.")
