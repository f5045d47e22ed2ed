"""Addresses of deleted pods rest before Calico may give them to somebody else. Stands alone: see README.md."""
