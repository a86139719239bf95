"""Sums that nobody can take apart: what a site sends is masked, and the masks cancel in the sum of all sites alone.

The protocol, with its assumptions and limits: docs/masking.md. Its shape: `roster` says who takes part and is signed by
all; `keys` agrees on a secret for each pair of sites and each run; `masks` makes one mask of it for each label;
`records` says which numbers stand where in a vector; `outbox` keeps what was sent, so that one label has one payload;
`sealing` is the site's side of a message, `opening` the server's.
"""
