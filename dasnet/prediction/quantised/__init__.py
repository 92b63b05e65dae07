"""Integers on CPUs: a network quantised after training, kept as a graph in its bundle, computed by OpenVINO."""
