"""What a method costs: parameters, FLOPs, time and memory."""
