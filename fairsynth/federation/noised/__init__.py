"""Studies with `privacy.profile: noise`: (epsilon, delta) for one patient of a site, over all that leaves it.

releases   what a plan lets out, with how much noise, and what epsilon that is
household  a site's own part: its budget, its draws, its noised numbers
site       what a site does for each request
forms      which noised numbers stand where in a masked vector
door       the server's checks of their sums
rounds     the server's loop
steady     which coefficients stand out of the noise
"""
