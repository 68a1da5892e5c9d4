"""From recordings to cases: filterbanks, frames with their context, and what a net says of them put in order by Viterbi."""
