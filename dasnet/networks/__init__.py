"""The networks that the paper compares itself with, each behind the same interface as DASNet."""
