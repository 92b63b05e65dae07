"""The networks: DASNet, and those that the paper and later ones compare it with, all behind one interface."""
