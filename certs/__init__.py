"""Nightcap's own certificates: made, rotated, published and served without a restart."""
