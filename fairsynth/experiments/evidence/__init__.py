"""Does it help, and what does the helping: experiments on real held-out patients, against baselines and the oracle."""
