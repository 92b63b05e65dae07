"""Everything that touches bytes at rest. Knows no torch, no Dask and no Prefect."""
