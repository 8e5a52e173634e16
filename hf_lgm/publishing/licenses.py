"""The licences that the Hub knows, and which one may be meant; free of torch: mistakes are answered at once."""

import difflib
import re
from typing import Any

# Identifiers that the metadata of a card may have, see https://huggingface.co/docs/hub/repositories-licenses
LICENSES = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
    eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community h-research
    intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit
    mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openmdw-1.0 openmdw-1.1 openrail openrail++ osl-3.0 other pddl postgresql
    unknown unlicense wtfpl zlib
    """.split()
)


def check_license(license_: str | None, name: str | None = None, link: str | None = None) -> None:
    """Refuse what the Hub would refuse on a card.

    Args:
        license_ (`str`, *optional*): The licence's identifier.
        name (`str`, *optional*): What it is called, where the identifier is `other`.
        link (`str`, *optional*): Its address, likewise.

    Raises:
        ValueError: If there is no such identifier, or name or address belong to another one.
    """
    if license_ is not None and license_ not in LICENSES:
        meant = f"{near}, or " if (near := nearest(license_)) else ""
        raise ValueError(
            f"license='{license_}' is no identifier of the Hub's: use {meant}other with "
            "license_name and license_link (see https://huggingface.co/docs/hub/repositories-licenses)."
        )
    if (name or link) and license_ != "other":
        given = "license_name" if name else "license_link"
        raise ValueError(
            f"{given} belongs to license='other', found {f'license={license_!r}' if license_ else 'none'}."
        )


def nearest(license_: str) -> str | None:
    """The identifier that may be meant: "CC BY 4.0" is `cc-by-4.0`; `None` where none is like it."""
    wanted = slug(license_)
    return next(iter(difflib.get_close_matches(wanted, sorted(LICENSES), 1, cutoff=0.6)), None)


def on_card(declared: Any) -> dict[str, str]:
    """The metadata for what somebody has declared: a licence that the Hub does not know is `other` there.

    Args:
        declared (`str`, `list[str]` or `None`): Of several, none is the one of the images.
    """
    if isinstance(declared, list):
        declared = declared[0] if len(declared) == 1 else " and ".join(map(str, declared))
    known = slug(str(declared or "unknown"))
    return {"license": known} if known in LICENSES else {"license": "other", "license_name": known}


def slug(text: str) -> str:
    """Lower case, with dashes in place of all that is not a letter, a digit, a dot or a plus."""
    return re.sub(r"[^a-z0-9.+]+", "-", text.lower()).strip("-") or "unnamed"
