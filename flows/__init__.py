"""Prefect flows and the command line. Only here is Prefect imported."""
