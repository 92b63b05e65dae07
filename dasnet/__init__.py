"""The network and its science. Knows no geography, no Dask and no Prefect."""
