"""Methods without training: statistics of the whole pair of mosaics, then each pixel by itself."""
