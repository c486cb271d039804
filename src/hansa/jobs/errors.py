"""Errors of jobs."""

from hansa.kernel.errors import Exit, register

NOT_FOUND = register("jobs.not_found", 404, Exit.NOT_FOUND, "There is no such job, or it is not yours.")
NO_TASK = register("jobs.no_task", 404, Exit.NOT_FOUND, "The job has no such task.")
NO_FILE = register("jobs.no_file", 404, Exit.NOT_FOUND, "There is no such file.")
NO_SITE = register("jobs.no_site", 422, Exit.REFUSED, "No site that you may use can run this.")
BAD_SPEC = register("jobs.bad_spec", 422, Exit.USAGE, "The job cannot be run as it is described.")
BAD_QUERY = register("jobs.bad_query", 422, Exit.USAGE, "The query for jobs cannot be understood.")
ARRAY_LIMIT = register("jobs.array_limit", 422, Exit.LIMIT, "The array has too many tasks.")
FILE_LIMIT = register("jobs.file_limit", 413, Exit.LIMIT, "A file, or all files of a job, are too large.")
FILE_MISSING = register("jobs.file_missing", 409, Exit.REFUSED, "The content of an input file has not been uploaded.")
DIGEST = register("jobs.digest_mismatch", 422, Exit.REFUSED, "The content does not match its digest.")
DEPENDENCY = register("jobs.dependency", 409, Exit.REFUSED, "The job that this one waits for will never be done.")
NOT_HELD = register("jobs.not_held", 409, Exit.REFUSED, "The job is not held.")
ENDED = register("jobs.ended", 409, Exit.REFUSED, "The job has ended.")
NOTHING_TO_RETRY = register("jobs.nothing_to_retry", 409, Exit.REFUSED, "No task of the job failed or was killed.")
PILOT_GONE = register("jobs.pilot_gone", 410, Exit.REFUSED, "This pilot is not wanted any more.")
PROTOCOL = register("jobs.protocol", 426, Exit.REFUSED, "The pilot speaks a protocol that this server does not.")
NOT_RUNNING = register("jobs.not_running", 409, Exit.REFUSED, "The task does not run, or its pilot cannot do this.")
NO_CHANNEL = register("jobs.no_channel", 404, Exit.NOT_FOUND, "There is no such shell or forward, or it is over.")
