"""The memory of a process that holds a private key: in no core dump, and closed to other processes of the same user."""

from __future__ import annotations

import resource
import sys

_PR_SET_DUMPABLE = 4


def keep_private() -> str:
    """Switch core dumps off for good and, on Linux, let no debugger of our own user attach; what could not be done, in one line.

    It does not keep memory out of swap, and hides nothing from root.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ValueError, OSError) as error:
        return f"core dumps could not be switched off, and one would hold the private key: {error}"
    if sys.platform != "linux":
        return ""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        return f"the memory of this process stays open to others of its user: prctl says {ctypes.get_errno()}"
    return ""
