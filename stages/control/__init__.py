"""How an action is chosen and improved: data policies, the V+M+C pilot, CMA-ES."""
