"""Pure geometry and the bounded fan-out. Knows no torch and no Prefect."""
