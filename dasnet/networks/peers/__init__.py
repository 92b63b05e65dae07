"""The networks that DASNet is compared with, each behind the same interface."""
