"""What looks at one date: an image in, features at a half, a quarter and an eighth of its resolution out."""
