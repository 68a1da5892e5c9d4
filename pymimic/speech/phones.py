"""TIMIT's 61 phones, their states, and the 39 classes that they are scored as."""

from __future__ import annotations

from collections.abc import Iterable

_FOLDED = {  # what is written as another phone, by Lee & Hon (1989): where 48 differ from the 61, and 39 from the 48
    48: "ax-h:ax axr:er bcl:vcl dcl:vcl gcl:vcl em:m eng:ng h#:sil hv:hh kcl:cl nx:n pau:sil pcl:cl tcl:cl ux:uw",
    39: "ao:aa ax:ah cl:sil el:l en:n epi:sil ix:ih vcl:sil zh:sh",
}
_ALL = (
    "aa ae ah ao aw ax ax-h axr ay b bcl ch d dcl dh dx eh el em en eng epi er ey f g gcl h# hh hv ih ix iy jh k kcl l m n ng nx ow oy "
    "p pau pcl q r s sh t tcl th uh uw ux v w y z zh"
)
_TO_48, _TO_39 = (dict(pair.split(":") for pair in _FOLDED[count].split()) for count in (48, 39))

GLOTTAL_STOP = "q"
"""Belongs to no class: it is dropped where phones are scored."""

SILENCE = "h#"
"""At both ends of a sentence."""

PHONES = tuple(_ALL.split())
"""All 61, in alphabetical order."""

STATES = 3
"""Of each phone: its beginning, middle and end. State s of phone p is number 3 p + s of 183."""

NUMBERS = {phone: number for number, phone in enumerate(PHONES)}
"""Each phone's place in `PHONES`."""


def number_of(phone: str) -> int:
    """Its place in `PHONES`; ValueError where it is none of TIMIT's."""
    if phone not in NUMBERS:
        raise ValueError(f"phone: expected one of TIMIT's 61, got {phone!r}")
    return NUMBERS[phone]


def training_phone(phone: str) -> str | None:
    """Which of the 48 phones that Lee & Hon (1989) train it is; None for the glottal stop.

    Raises
    ------
    ValueError
        It is none of TIMIT's.
    """
    number_of(phone)
    return None if phone == GLOTTAL_STOP else _TO_48.get(phone, phone)


def scored_phone(phone: str) -> str | None:
    """Which of the 39 classes it is scored as; None for the glottal stop. Errors as `training_phone` has them."""
    trained = training_phone(phone)
    return None if trained is None else _TO_39.get(trained, trained)


CLASSES = tuple(sorted({name for name in map(scored_phone, PHONES) if name is not None}))
"""All 39, in alphabetical order."""


def folded(phones: Iterable[str]) -> list[str]:
    """The classes of phones in their order, glottal stops left out."""
    return [name for name in map(scored_phone, phones) if name is not None]
