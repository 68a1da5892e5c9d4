"""TIMIT's phones, against the table of Lee & Hon (1989)."""

import pytest

from pymimic.speech.phones import CLASSES, NUMBERS, PHONES, folded, scored_phone, training_phone

# The groups of the 39 that hold more than one phone, as Lee & Hon (1989) and Lopes & Perdigao (2011, table 3) print them.
GROUPS = {
    "aa": "aa ao", "ah": "ah ax ax-h", "er": "er axr", "hh": "hh hv", "ih": "ih ix", "l": "l el", "m": "m em", "n": "n en nx",
    "ng": "ng eng", "sh": "sh zh", "sil": "pcl tcl kcl bcl dcl gcl h# pau epi", "uw": "uw ux",
}  # fmt: skip


def test_there_are_61_phones_48_to_train_and_39_to_score():
    assert len(set(PHONES)) == len(PHONES) == 61
    assert list(PHONES) == sorted(PHONES)
    assert len({training_phone(phone) for phone in PHONES} - {None}) == 48
    assert len(CLASSES) == 39
    assert NUMBERS["aa"] == 0
    assert NUMBERS["zh"] == 60


@pytest.mark.parametrize("name", GROUPS)
def test_groups_are_those_of_the_table(name):
    assert {phone for phone in PHONES if scored_phone(phone) == name} == set(GROUPS[name].split())


def test_all_others_are_scored_as_themselves():
    grouped = {phone for group in GROUPS.values() for phone in group.split()} | {"q"}
    assert all(scored_phone(phone) == phone for phone in PHONES if phone not in grouped)


@pytest.mark.parametrize(
    ("phone", "trained"),
    [("ao", "ao"), ("ix", "ix"), ("ax-h", "ax"), ("bcl", "vcl"), ("tcl", "cl"), ("epi", "epi"), ("zh", "zh"), ("q", None)],
)
def test_training_keeps_some_apart_that_scoring_does_not(phone, trained):
    assert training_phone(phone) == trained


def test_glottal_stops_are_dropped_and_repeats_stay():
    assert folded(["h#", "q", "ao", "tcl", "t", "pau", "h#"]) == ["sil", "aa", "sil", "t", "sil", "sil"]


def test_a_phone_of_another_set_is_refused():
    with pytest.raises(ValueError, match="phone: expected one of TIMIT's 61, got 'sil'"):
        scored_phone("sil")
