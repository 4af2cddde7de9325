"""The report page: one HTML file, made from records alone, that needs neither a server nor the network."""
