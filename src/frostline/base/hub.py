"""Whether the Hugging Face hub can be asked, found out in a moment.

The hub's own client retries for half a minute before it gives up.
"""

from __future__ import annotations

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies

_CONNECT_SECONDS = 3.0


def hub_in_reach() -> bool:
    """Try one connection. Offline by the user's own setting is no; behind a proxy, which alone can tell, is yes."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if getproxies():
        return True
    address = urlsplit(constants.ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname or "", port), _CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
