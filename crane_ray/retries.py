"""Storage that fails now and then: which of its errors may pass, and the one place that waits.

Client libraries try single requests again on their own (S3: ``AWS_MAX_ATTEMPTS``,
``AWS_RETRY_MODE``). What comes through, on a URI or a mounted network path, is met here by doing
the whole operation again; all of crane-ray's operations are the same when done twice.
"""

import errno
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from crane_ray.errors import CraneError

log = logging.getLogger(__name__)
Result = TypeVar("Result")

WAITS_S = (0.2, 0.6, 1.5, 4.0)
"""Mean waits between attempts: storage may be away for some seconds; longer is an outage."""

PASSING_ERRNOS = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,  # s3fs: 503 and SlowDown
        errno.EIO,  # network mounts that timed out; fsspec for answers that it does not know
        getattr(errno, "EREMOTEIO", errno.EIO),  # s3fs: 500
        errno.ESTALE,  # NFS: the file was replaced on another node
        errno.ETIMEDOUT,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENETRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
    }
)
"""Errors that another attempt may escape."""

PASSING_NAMES = frozenset(
    {
        "HTTPClientError",  # botocore: timeouts, closed connections, broken streams
        "ConnectionError",  # botocore's own, no child of the built-in
        "ResponseParserError",
        "IncompleteReadError",
        "IncompleteRead",
        "ClientConnectionError",  # aiohttp
        "ClientPayloadError",
        "ServiceRequestError",  # azure
        "ServiceResponseError",
        "TransportError",  # google.auth
    }
)
"""Classes of client libraries, by name: none of these libraries need be installed."""

PASSING_STATUS = frozenset({"408", "429", "500", "502", "503", "504"})
LIBRARIES = frozenset(
    {"adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "paramiko"}
)


class Tally:
    """A number that several threads add to."""

    def __init__(self) -> None:
        self.number = 0
        self._lock = threading.Lock()

    def add(self) -> None:
        """One more."""
        with self._lock:
            self.number += 1


tried_again = Tally()
"""Operations that this process did again."""


def retrying(action: Callable[[], Result]) -> Result:
    """The action's result; after an error that may pass it is tried again, five times in all."""
    for wait_s in WAITS_S:
        try:
            return action()
        except Exception as error:
            if not may_pass(error):
                raise
            tried_again.add()
            log.info("tried again in about %g s: %s: %s", wait_s, type(error).__name__, error)
        # Spread out: the actors of a cluster that were refused together come back apart.
        time.sleep(wait_s * random.uniform(0.5, 1.5))
    return action()


def may_pass(error: BaseException) -> bool:
    """True for an error of storage that the same call may not meet again."""
    if isinstance(error, CraneError):
        return False
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in PASSING_ERRNOS
    if not is_storage_error(error):
        return False
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & PASSING_NAMES) or str(status) in PASSING_STATUS


def is_storage_error(error: BaseException) -> bool:
    """True for what storage raises, not for mistakes of ours."""
    return isinstance(error, OSError) or type(error).__module__.split(".", 1)[0] in LIBRARIES
