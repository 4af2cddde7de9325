"""How the methods are compared: training, scoring, cost, records and tables."""
