"""What a single field cannot say of itself: settings that must fit together, or be addresses.

`load` asks for what is never right; `check_upstreams` is for those who mean to serve.
"""

from ipaddress import IPv4Network, IPv6Network, ip_network
from urllib.parse import urlsplit

from qwen_openai.errors import StartupError
from qwen_openai.settings.fields import Settings

Network = IPv4Network | IPv6Network


def networks(addresses: tuple[str, ...]) -> tuple[Network, ...]:
    """Return addresses and networks as networks. Raises StartupError for what is neither."""
    found = []
    for address in addresses:
        try:
            found.append(ip_network(address, strict=False))
        except ValueError:
            raise StartupError(
                f"The setting 'trusted_proxies' cannot have {address!r} in it: it is no address "
                "and no network.",
                fix="Write 10.0.0.7, 10.0.0.0/8 or fd00::/8; names are not looked up.",
            ) from None
    return tuple(found)


def check_addresses(settings: Settings) -> None:
    """Raise StartupError where proxies are no networks or a page's origin is none."""
    networks(settings.trusted_proxies)
    for origin in settings.cors_origins:
        parts = urlsplit(origin)
        whole = f"{parts.scheme}://{parts.netloc}"
        if origin != "*" and (origin != whole.lower() or parts.scheme not in ("http", "https")):
            raise StartupError(
                f"The setting 'cors_origins' cannot have {origin!r} in it: browsers never send "
                "that as an origin.",
                fix="Write it as https://chat.example.org: scheme, name and port, no path, "
                "in small letters.",
            )


def check_upstreams(settings: Settings) -> None:
    """Raise StartupError where nothing could ever answer."""
    if settings.engine == "upstream" and not settings.upstreams:
        raise StartupError(
            "The engine is 'upstream', and no upstreams are set.",
            fix="Name them: --upstreams http://127.0.0.1:8001,http://127.0.0.1:8002, or "
            "[[upstreams]] in a config file.",
        )
