"""Seeded defects: each one must turn exactly its own rules red."""
