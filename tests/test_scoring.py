"""Phones of logits, the bigram model and the phone error rate, against what was worked out by hand."""

import numpy as np
import pytest

from pymimic.speech.phones import NUMBERS
from pymimic.speech.scoring import STATE_COUNT, Decoder, Scales, bigram, phone_error_rate, phones_of
from pymimic.speech.segments import Segment, frame_states


@pytest.mark.parametrize(
    ("hypothesis", "reference", "errors"),
    [
        ("h# k ae t h#", "h# k ae t h#", 0),
        ("h# k ah t h#", "h# k ae t h#", 1),  # substituted
        ("h# k ae h#", "h# k ae t h#", 1),  # deleted
        ("h# k ae s t h#", "h# k ae t h#", 1),  # inserted
        ("h# ao zh ix nx h#", "pau aa sh ih n epi", 0),  # the same classes
        ("h# k q ae t h#", "h# k ae q t h#", 0),  # glottal stops do not count
        ("", "h# k ae t h#", 5),
        ("k ih t ah n", "s ih t ih ng", 3),  # kitten and sitting
    ],
)
def test_phone_errors_are_edits_of_the_39_classes(hypothesis, reference, errors):
    pytest.importorskip("rapidfuzz")
    length = len([phone for phone in reference.split() if phone != "q"])
    assert phone_error_rate([hypothesis.split()], [reference.split()]) == errors / length


def test_the_rate_is_of_all_sentences_together():
    pytest.importorskip("rapidfuzz")
    assert phone_error_rate([["aa"], ["b", "d", "g"]], [["ae"], ["b", "d", "g"]]) == 1 / 4
    with pytest.raises(ValueError, match="hypotheses: expected 2, as there are references, got 1"):
        phone_error_rate([["aa"]], [["aa"], ["b"]])
    with pytest.raises(ValueError, match="references: expected phones, got none"):
        phone_error_rate([["aa"]], [["q"]])


def test_a_bigram_is_counted_and_smoothed_as_witten_and_bell_do():
    P = bigram([["h#", "aa", "b", "aa", "h#"], ["h#", "aa", "h#"]])
    aa, b, end = (NUMBERS[phone] for phone in ("aa", "b", "h#"))
    single = {"aa": 4 / 69, "b": 2 / 69, "h#": 5 / 69, "z": 1 / 69}  # 8 phones, and 1 for each of 61
    assert P[aa, end] == pytest.approx((2 + 2 * single["h#"]) / 5)  # 3 follow aa, of 2 kinds
    assert P[aa, b] == pytest.approx((1 + 2 * single["b"]) / 5)
    assert P[b, aa] == pytest.approx((1 + single["aa"]) / 2)
    assert P[NUMBERS["z"], aa] == pytest.approx(single["aa"])  # nothing follows z
    assert np.allclose(P.sum(axis=1), 1)


def test_a_way_through_the_states_gives_its_phones():
    aa, b = 3 * NUMBERS["aa"], 3 * NUMBERS["b"]
    assert phones_of(np.array([aa, aa, aa + 1, aa + 2, b, b + 1, b + 2, b + 2, aa, aa + 1, aa + 2, aa, aa + 1, aa + 2])) == [
        "aa",
        "b",
        "aa",
        "aa",
    ]


@pytest.fixture
def decoder():
    pytest.importorskip("librosa")
    segments = [Segment(0, 1, phone) for phone in ("h#", "aa", "b", "h#")]
    states = np.concatenate([np.repeat(3 * NUMBERS[one.phone] + np.arange(3), 2) for one in segments])
    return Decoder([states], [segments])


def logits_of(phones, frames=2, certain=9.0):
    states = np.concatenate([np.repeat(3 * NUMBERS[phone] + np.arange(3), frames) for phone in phones])
    return certain * np.eye(STATE_COUNT, dtype=np.float32)[states]


def test_certain_logits_give_their_phones(decoder):
    phones = ["h#", "aa", "aa", "b", "h#"]
    assert decoder.decoded([logits_of(phones)], Scales()) == [phones]


def test_what_training_has_not_is_never_chosen(decoder):
    assert "z" not in decoder.decoded([logits_of(["h#", "z", "b", "h#"])], Scales())[0]


def test_rows_of_transitions_are_probabilities_that_follow_training(decoder):
    T = decoder.transition(Scales())
    assert np.allclose(T.sum(axis=1), 1)
    aa, b = 3 * NUMBERS["aa"], 3 * NUMBERS["b"]
    assert T[aa, aa + 1] == T[aa, aa] == 0.5  # two frames each
    assert T[aa + 2, b] == pytest.approx(0.5 * decoder.follows[NUMBERS["aa"], NUMBERS["b"]])
    assert np.count_nonzero(T[aa]) == 2


def test_a_heavier_model_and_fewer_insertions_mend_what_the_net_doubts(decoder):
    T = decoder.transition(Scales(2.0, 0.25))
    aa = 3 * NUMBERS["aa"]
    assert T[aa + 2, aa + 2] == pytest.approx(1 - 0.125)
    squares = decoder.follows[NUMBERS["aa"]] ** 2
    assert np.allclose(T[aa + 2, ::3] / 0.125, squares / squares.sum())


def test_a_model_of_any_weight_is_one(decoder):
    T = decoder.transition(Scales(300.0, 1.0))
    assert np.allclose(T.sum(axis=1), 1)
    aa, b = 3 * NUMBERS["aa"], 3 * NUMBERS["b"]
    assert T[aa + 2, b] == pytest.approx(0.5)  # all of what leaves


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Decoder([], []), "states: expected those of at least one frame, got none"),
        (lambda: Decoder([np.array([0, -1])], [[]]), r"states\[0\]: expected values in \[0, 183\), got \[-1, 0\]"),
        (lambda: Decoder([np.array([0])], [[Segment(0, 1, "zz")]]), "phone: expected one of TIMIT's 61, got 'zz'"),
        (lambda: bigram([["zz"]]), "phone: expected one of TIMIT's 61, got 'zz'"),
        (lambda: phones_of(np.array([183])), r"states: expected values in \[0, 183\), got \[183, 183\]"),
        (lambda: frame_states([Segment(0, 1, "zz")], 3, 16_000), "phone: expected one of TIMIT's 61, got 'zz'"),
        (lambda: frame_states([], 3, 16_000), "segments: expected at least one, got none"),
    ],
)
def test_what_is_no_phone_or_state_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_scales_are_chosen_by_the_error_rate(decoder, monkeypatch):
    pytest.importorskip("rapidfuzz")
    wanted = Scales(2.0, 0.3)
    monkeypatch.setattr(Decoder, "decoded", lambda self, logits, scales: [["aa", "b"] if scales == wanted else ["aa"]])
    assert decoder.chosen([logits_of(["aa"])], [["aa", "b"]]) == wanted
