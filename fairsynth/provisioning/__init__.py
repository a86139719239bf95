"""Keys, certificates and grants of a consortium: made where they are used, signed by its coordinator."""
