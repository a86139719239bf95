"""Flower adapter, site half: decode, one library call, encode."""
