"""Tables, comparisons and the results page, made from records alone. Nothing here needs torch at import."""
