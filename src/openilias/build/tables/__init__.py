"""Tables of images to fetch, read as one stream of rows."""
