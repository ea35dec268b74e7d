"""File names for things that outsiders named: stock symbols may be `../x`, `con`, empty, or 10 kB long."""

import hashlib
import re

_UNSAFE = re.compile(r"[^a-z0-9]+")


def safe_name(symbol: str) -> str:
    """A file name for a symbol: a readable stem and sixteen digits of the symbol's SHA-256.

    Two symbols never share a name (also where they differ only by case, which some disks ignore), and no
    symbol can name a path, a device or an option: lower-case letters, digits and one hyphen, at most 41
    characters.

    Example:
        >>> safe_name("BRK.B")
        'brk-b-0907abf5bc1da7c7'
    """
    digest = hashlib.sha256(symbol.encode("utf-8", errors="surrogatepass")).hexdigest()[:16]
    stem = _UNSAFE.sub("-", symbol[:64].lower()).strip("-")[:24].strip("-")
    return f"{stem or 'symbol'}-{digest}"
