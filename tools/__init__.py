"""What the Makefile runs beside the library: reports on what FairSynth is made of."""
