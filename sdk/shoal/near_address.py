"""Which web addresses are of one's own network, and so are reached without a proxy.

**Rule.** The environment names a proxy for the web (`https_proxy`), and a proxy leads out of a network.
What has an address that is not of the internet, a name without a dot, or a name that mDNS answers
(`.local`, RFC 6762), is within it, and is dialled directly whatever the environment says. Everything else
is for the environment to say, `no_proxy` included.

Example: with `https_proxy=http://proxy:3128`, the archive of a controller at https://10.77.0.1:7471 is
dialled, and https://s3.eu-central-1.amazonaws.com is reached through the proxy.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit


def is_near(url: str) -> bool:
    """Say whether a web address is of one's own network; one that cannot be read is not."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    try:
        return not ip_address(host).is_global
    except ValueError:
        name = host.removesuffix(".")
        return bool(name) and ("." not in name or name.endswith(".local"))
